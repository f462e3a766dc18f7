"""What a reader has in hand of one partition: messages taken, how far each is handled, and what a commit may say.

A commit never passes an unfinished record, so the position follows the *first* message that is not handled whole; those
behind it wait for it, however far they are. Two sets of marks: ``judged`` counts what was taken, so that a repeat of a
message in hand is seen; ``marks`` counts what is handled, and is what a commit carries. Pure: no clock, broker or thread.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from pipeline.consume.checkpoint import Position
from pipeline.consume.unpack import Kind, Unpacked
from pipeline.model.dedup import IdWindow
from pipeline.model.repeats import Marks
from pipeline.model.shards import Place


@dataclass(slots=True, eq=False)
class Item:
    """A message in hand. ``total`` records of it have to be handled; the first ``done`` are. ``buried`` says that a BAD
    message is kept in the dead letters."""

    unpacked: Unpacked
    track: Track
    total: int
    done: int = 0

    @property
    def finished(self) -> bool:
        return self.done >= self.total


@dataclass(slots=True, eq=False)
class Track:
    """One partition from its assignment to its revocation; not ``live`` after that."""

    place: Place
    position: Position
    marks: Marks
    turn: str
    judged: Marks = field(init=False)
    items: deque[Item] = field(default_factory=deque)
    live: bool = True
    newest_ms: int = 0
    ids: IdWindow | None = None

    def __post_init__(self) -> None:
        self.judged = self.marks.copy()

    def take(self, unpacked: Unpacked) -> Item:
        """A message was judged and is in hand now. A BAD one counts as one thing to do: keep it."""
        total = 1 if unpacked.kind is Kind.BAD else len(unpacked.kept)
        item = Item(unpacked, self, total)
        _accept(self.judged, unpacked)
        self.items.append(item)
        return item

    def settle(self) -> list[Item]:
        """Move the position past everything that is handled from the front on; returns the messages that are through."""
        passed: list[Item] = []
        while self.items and self.items[0].finished:
            item = self.items.popleft()
            _accept(self.marks, item.unpacked)
            if item.unpacked.stamp is not None:
                self.newest_ms = max(self.newest_ms, item.unpacked.stamp.created_at_ms)
            self.position = Position(item.unpacked.fetched.offset + 1)
            passed.append(item)
        if self.items and self.items[0].done:
            head = self.items[0]
            self.position = Position(head.unpacked.fetched.offset, head.unpacked.kept[head.done - 1] + 1)
        return passed

    def put_back(self) -> int:
        """Forget what is in hand; returns the offset to read from again."""
        self.items.clear()
        self.judged = self.marks.copy()
        return self.position.offset


def _accept(marks: Marks, unpacked: Unpacked) -> None:
    stamp, shard = unpacked.stamp, unpacked.shard
    if unpacked.kind is Kind.RECORDS and stamp is not None and shard is not None:
        marks.accept(stamp.producer, stamp.last_seq, shard.low, shard.high, stamp.created_at_ms)
