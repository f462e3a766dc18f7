"""Checkpoints of a group: how far each partition is handled, and the marks that tell repeats from there on.

Numbered, because the order is the promise:

    1. the handler is done with a record (or a message without records was judged);
    2. the marks as of that position are written to the compacted topic `<stream>.marks`, acks=all;
    3. the position is committed to Kafka's group, with the index inside the aggregate and a pointer to those marks.

A crash between 2 and 3 leaves marks that are ahead of the position: the records between were handled, so whoever goes on
drops them as repeats, which is right. A position that somebody else set (a reset by a tool) has no pointer: its reader
starts without marks, since replaying is what was asked for.

Each assignment writes under a key of its own, its *turn*, which the commit names too: a reader that slept past its session
and wakes writes marks that nobody's commit points to, since Kafka refuses its commit.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from pipeline.config import Connection
from pipeline.errors import BrokerUnavailableError
from pipeline.kafka.group_reader import Committed
from pipeline.kafka.log_reader import LogReader
from pipeline.kafka.topics import Topics
from pipeline.kafka.writer import Writer
from pipeline.model.repeats import Marks
from pipeline.model.shards import Place

TIMEOUT_S = 15.0


@dataclass(frozen=True, slots=True)
class Position:
    """The next record to handle of a partition: ``index`` counts records of the message at ``offset`` that are done."""

    offset: int
    index: int = 0


@dataclass(frozen=True, slots=True)
class Note:
    """What a commit carries beside its offset."""

    index: int
    marks_offset: int
    turn: str


def note_of(committed: Committed) -> Note | None:
    """The note of a commit of ours; None for one of another tool's."""
    try:
        data = json.loads(committed.note)
        return Note(int(data["index"]), int(data["marks"]), str(data["turn"]))
    except (ValueError, KeyError, TypeError):
        return None


class MarksTopic:
    """Marks by (group, place, turn) in `<stream>.marks`. Not thread-safe."""

    def __init__(self, connection: Connection, stream: str, group: str) -> None:
        self._connection = connection
        self._group = group
        self.topic = f"{stream}.marks"
        Topics(connection).create(self.topic, 1, {"cleanup.policy": "compact"})
        self._writer = Writer(connection)
        self._writer.prepare()

    def write(self, place: Place, turn: str, position: Position, marks: dict[str, Any]) -> int:
        """Write the marks of a place as of a position; returns the pointer to commit beside it."""
        value = {"offset": position.offset, "index": position.index, "marks": marks}
        text = json.dumps(value, separators=(",", ":"), sort_keys=True).encode()
        offset = self._writer.write(self.topic, 0, self._key(place, turn), text)
        if offset is not None:
            return offset
        reader = LogReader(self._connection, self.topic, 0)
        try:
            return reader.bounds(TIMEOUT_S)[1] - 1
        finally:
            reader.close()

    def forget(self, place: Place, turn: str) -> None:
        """The marks of a turn that ended are not needed any more: compaction may take them."""
        self._writer.write(self.topic, 0, self._key(place, turn), None)

    def read(self, notes: dict[Place, Note]) -> dict[Place, Marks]:
        """The marks of places whose commits point here: those pointed to, or newer ones of the same turn (see the module).

        Raises BrokerUnavailableError where they cannot be found: going on without them would repeat records.
        """
        if not notes:
            return {}
        wanted = {self._key(place, note.turn): place for place, note in notes.items()}
        found: dict[Place, Marks] = {}
        reader = LogReader(self._connection, self.topic, 0)
        try:
            low, end = reader.bounds(TIMEOUT_S)
            for entry in reader.read(low, end, TIMEOUT_S):
                place = wanted.get(entry.key or b"")
                if place is not None and entry.value is not None and entry.offset >= notes[place].marks_offset:
                    found[place] = Marks.from_json(json.loads(entry.value)["marks"])
        finally:
            reader.close()
        missing = [place for place in notes if place not in found]
        if missing:
            raise BrokerUnavailableError(
                f"{self.topic} does not hold the marks that group {self._group!r} committed for {missing[0][0]}[{missing[0][1]}]"
                ": was it deleted? Restore it, or reset the group's offsets to replay without marks"
            )
        return found

    def close(self) -> None:
        self._writer.close()

    def _key(self, place: Place, turn: str) -> bytes:
        return json.dumps([self._group, place[0], place[1], turn]).encode()


def commit_of(position: Position, marks_offset: int, turn: str) -> Committed:
    """What goes to Kafka's group for a position."""
    note = json.dumps({"index": position.index, "marks": marks_offset, "turn": turn}, separators=(",", ":"))
    return Committed(position.offset, note)
