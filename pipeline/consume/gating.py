"""Assigned partitions that are not read yet: the lineage gate at work, and where each partition starts.

Every new partition waits here, paused, until a look at the control log and at the group's commits says that it may be read.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Mapping

from pipeline.consume.assignment import gate, starting_positions
from pipeline.consume.checkpoint import Position, note_of
from pipeline.consume.commits import Commits
from pipeline.consume.counters import Counters
from pipeline.consume.dedup import Windows
from pipeline.consume.parts import GroupMember, Lineage
from pipeline.consume.tracks import Track
from pipeline.errors import RetryableError, TrimmedError
from pipeline.kafka.group_reader import Committed
from pipeline.model.shards import Place, ShardMap

log = logging.getLogger("headrace.consume")
EARLIEST, LATEST = "earliest", "latest"
GATE_CHECK_S = 0.2
ASSIGNED_S = 0.02  # how soon a new assignment is looked at: poll does not return for it
START_AGAIN_S = 0.02
FAILED_LOOK_S = 1.0
STOP, CONTINUE = "stop", "continue"


class Gating:
    """Not thread-safe: its reader owns it. ``start`` hands back tracks that may be read from now on."""

    def __init__(
        self,
        reader: GroupMember,
        control: Lineage,
        commits: Commits,
        windows: Windows | None,
        counters: Counters,
        start: str | int,
        on_trimmed: str,
    ) -> None:
        self._windows = windows
        self._reader = reader
        self._control = control
        self._commits = commits
        self._counters = counters
        self._start_at = start
        self._start_resolved = start == EARLIEST
        self._on_trimmed = on_trimmed
        self._waiting: dict[Place, float] = {}
        self._look_at = 0.0
        self._looks_soon = True

    @property
    def waiting(self) -> Mapping[Place, float]:
        """Places that are assigned and not read yet, and since when (monotonic seconds)."""
        return self._waiting

    @property
    def patience_s(self) -> float:
        """How long a poll may take at most."""
        return ASSIGNED_S if self._looks_soon else GATE_CHECK_S

    def add(self, places: Iterable[Place]) -> None:
        now = time.monotonic()
        self._waiting |= dict.fromkeys(places, now)
        self._look_at = 0.0

    def remove(self, place: Place) -> None:
        self._waiting.pop(place, None)

    def hurry(self) -> None:
        """A seal was passed: look again at once."""
        self._look_at = 0.0

    def start(self) -> list[Track]:
        """The partitions that may be read by now, started. They are paused until then, and polled on: the group sees a live
        member."""
        if not self._waiting or time.monotonic() < self._look_at:
            return []
        self._looks_soon = False
        try:
            shard_map = self._control.barrier()
            self._resolve_start(shard_map)
            open_places, committed = self._open_places(shard_map)
            opened = self._waiting.keys() & open_places
            tracks = self._commits.tracks(shard_map, self._positions(opened, committed), committed) if opened else {}
            if self._windows is not None:
                for track in tracks.values():
                    self._windows.fill(shard_map, track)
        except RetryableError as error:
            log.warning("the gate waits: %s", error)
            self._look_at = time.monotonic() + FAILED_LOOK_S
            return []
        # Counted from here on: a look may take its time, and what is open already is read between two of them.
        self._look_at = time.monotonic() + GATE_CHECK_S
        started: list[Track] = []
        for place, track in tracks.items():
            if self._reader.start(place, track.position.offset):
                self._counters.gate_waited(time.monotonic() - self._waiting.pop(place))
                started.append(track)
            else:  # the client has not taken it up yet
                self._commits.forget(place)
                self._look_at = time.monotonic() + START_AGAIN_S
                self._looks_soon = True
        return started

    def trimmed(self, place: Place, offset: int, low: int) -> None:
        """Offsets from ``offset`` to ``low`` went unread. Raises TrimmedError unless the consumer was told to go on."""
        if self._on_trimmed != CONTINUE:
            raise TrimmedError(
                f"{place[0]}[{place[1]}] starts at {low}, and this group had read up to {offset}: retention removed "
                f"{low - offset} messages unread. To go on without them, and count them: Consumer(…, on_trimmed='continue')"
            )
        log.warning("%s[%d]: %d offsets were removed by retention unread; going on at %d", *place, low - offset, low)
        self._counters.trimmed(low - offset)

    def _resolve_start(self, shard_map: ShardMap) -> None:
        """A group that is new to the stream and starts at "latest" or at a time: where that is, is settled once, for all
        shards, and committed; whoever is assigned a shard later, or a child made later, goes by it."""
        if self._start_resolved:
            return
        if not self._reader.committed(shard_map.places):
            bounds = {place: self._reader.bounds(place) for place in shard_map.places}
            if isinstance(self._start_at, int):
                wanted = self._reader.offsets_at(shard_map.places, self._start_at)
            else:
                wanted = {place: end for place, (_, end) in bounds.items()}
            positions = starting_positions(shard_map, wanted, {place: low for place, (low, _) in bounds.items()})
            self._reader.commit({place: Committed(offset, "") for place, offset in positions.items()})
        self._start_resolved = True

    def _open_places(self, shard_map: ShardMap) -> tuple[set[Place], dict[Place, Committed]]:
        committed = self._reader.committed(shard_map.places)
        offsets = {place: position.offset for place, position in committed.items()}
        parents = {shard_map.shards[p] for shard in shard_map.shards.values() for p in shard.parents}
        undrained = {s.place for s in parents if s.seal is None or offsets.get(s.place, 0) < s.seal}
        starts = {place: self._reader.bounds(place)[0] for place in undrained}
        if self._on_trimmed != CONTINUE:
            for place, low in starts.items():
                if 0 < offsets.get(place, low) < low:  # a parent that was begun and is cut
                    self.trimmed(place, offsets[place], low)
        return gate(shard_map, offsets, starts), committed

    def _positions(self, places: Iterable[Place], committed: dict[Place, Committed]) -> dict[Place, Position]:
        positions: dict[Place, Position] = {}
        for place in places:
            low, _ = self._reader.bounds(place)
            at = committed.get(place)
            if at is not None and at.offset < low:
                self.trimmed(place, at.offset, low)
                positions[place] = Position(low)
                continue
            note = note_of(at) if at is not None else None
            positions[place] = Position(low if at is None else at.offset, note.index if note else 0)
        return positions


