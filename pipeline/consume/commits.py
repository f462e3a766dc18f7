"""Commits of a reader: positions to Kafka's group, marks to their topic before them (``checkpoint.py`` says why so), and the
marks that an assignment starts with."""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Iterable, Mapping

from pipeline.consume.assignment import marks_sources
from pipeline.consume.checkpoint import Position, commit_of, note_of
from pipeline.consume.counters import Counters
from pipeline.consume.parts import GroupMember, MarksStore
from pipeline.consume.tracks import Track
from pipeline.errors import HeadraceError
from pipeline.kafka.group_reader import Committed
from pipeline.model.repeats import Marks
from pipeline.model.shards import Place, ShardMap

log = logging.getLogger("headrace.consume")
PRODUCER_RETENTION_MS = 7 * 24 * 3600 * 1000


class Commits:
    """Not thread-safe: its reader owns it."""

    def __init__(self, marks_topic: MarksStore, counters: Counters) -> None:
        self._marks_topic = marks_topic
        self._committed: dict[Place, Position] = {}
        self._ended_turns: dict[Place, str] = {}
        self._counters = counters
        self._newest_ms = 0

    def tracks(
        self, shard_map: ShardMap, positions: Mapping[Place, Position], committed: Mapping[Place, Committed]
    ) -> dict[Place, Track]:
        """The tracks of partitions that start at ``positions``. Marks come with the commit: a place's own, or its parents'
        (``marks_sources``)."""
        notes = {place: note for place, at in committed.items() if (note := note_of(at)) is not None}
        sources = {p: marks_sources(shard_map, p, at.offset, notes.__contains__) for p, at in positions.items()}
        asked = {source for parts in sources.values() for source, _, _ in parts}
        found = self._marks_topic.read({place: notes[place] for place in asked})
        tracks: dict[Place, Track] = {}
        for place, parts in sources.items():
            marks = Marks()
            for source, low, high in parts:
                marks.replace(low, high, found[source])
            tracks[place] = Track(place, positions[place], marks, uuid.uuid4().hex)
            if place in notes:
                self._ended_turns[place] = notes[place].turn
            at = committed.get(place)
            if at is not None and at.offset == positions[place].offset:
                self._committed[place] = positions[place]
        return tracks

    def commit(self, reader: GroupMember, tracks: Iterable[Track]) -> None:
        """Commit those that moved; while partitions are given up, without waiting for the answer (see ``GroupReader.commit``).
        Raises BrokerUnavailableError: nothing is lost, some records come again."""
        moved = [track for track in tracks if self._committed.get(track.place) != track.position]
        if not moved:
            return
        started = time.monotonic()
        commits: dict[Place, Committed] = {}
        for track in moved:
            self._newest_ms = max(self._newest_ms, track.newest_ms)
            track.marks.prune(self._newest_ms - PRODUCER_RETENTION_MS)
            pointer = self._marks_topic.write(track.place, track.turn, track.position, track.marks.to_json())
            commits[track.place] = commit_of(track.position, pointer, track.turn)
        positions = {track: track.position for track in moved}
        ended_turns = {place: self._ended_turns[place] for place in commits.keys() & self._ended_turns.keys()}

        def answered(error: HeadraceError | None) -> None:
            if error is not None:
                self._counters.commit_failed()
                places = ", ".join(f"{topic}[{partition}]" for topic, partition in commits)
                log.warning("the commit before %s went to others failed: the last records come again there (%s)", places, error)
                return
            self._committed |= {track.place: position for track, position in positions.items() if track.live}
            for place, turn in ended_turns.items():
                self._marks_topic.forget(place, turn)
                if self._ended_turns.get(place) == turn:
                    del self._ended_turns[place]
            self._counters.committed(time.monotonic() - started)

        reader.commit(commits, answered)

    def forget(self, place: Place) -> None:
        """The partition went to another member."""
        self._committed.pop(place, None)
        self._ended_turns.pop(place, None)

    def close(self) -> None:
        self._marks_topic.close()
