"""Repeats: which records were accepted before, told exactly and with little state (DESIGN.md §3, reader rule 3).

One *mark* per producer and range of hash keys: the highest sequence accepted there. A record is a repeat if and only if its
sequence is at or below the mark of its range.

Why ranges, and not one number per producer or per shard: a shard is fed in sequence order, so accepting sequence g in a
shard says that everything up to g in that shard's range was accepted. Another shard may lag behind. After a merge, the
child's range holds the marks of both parents side by side; a maximum over them would drop the laggard's records.

Marks are kept as one step function over the whole hash space, so a split needs no copying and a merge no joining: the
children's ranges are the parents' ranges. Pure: no clock; times are the stamps' own.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

from pipeline.model.keys import HASH_SPACE

NO_MARK = -1


class Verdict(Enum):
    """What to do with a message."""

    ACCEPT = "accept"  # none of its records was accepted before
    REPEAT = "repeat"  # all of them were
    PARTLY = "partly"  # judge record by record


@dataclass(frozen=True, slots=True)
class MarkRange:
    """``seq`` is the highest sequence accepted for hash keys in [low, high); -1 for none."""

    low: int
    high: int
    seq: int


class _Steps:
    """A step function over the hash space: ``bounds[i]`` starts a range with value ``seqs[i]``; bounds[0] is 0."""

    __slots__ = ("bounds", "last_seen_ms", "seqs")

    def __init__(self) -> None:
        self.bounds: list[int] = [0]
        self.seqs: list[int] = [NO_MARK]
        self.last_seen_ms = 0

    def _cut(self, at: int) -> int:
        """Index of the range that starts at ``at``, after making one start there."""
        index = bisect_right(self.bounds, at) - 1
        if self.bounds[index] == at:
            return index
        self.bounds.insert(index + 1, at)
        self.seqs.insert(index + 1, self.seqs[index])
        return index + 1

    def set_range(self, low: int, high: int, seq: int, *, raise_only: bool = True) -> None:
        first = self._cut(low)
        end = len(self.bounds) if high >= HASH_SPACE else self._cut(high)
        for index in range(first, end):
            self.seqs[index] = max(self.seqs[index], seq) if raise_only else seq
        self._join(max(first - 1, 0), min(end + 1, len(self.bounds)))

    def _join(self, first: int, end: int) -> None:
        """Equal neighbours become one range: the state stays as small as the history allows."""
        for index in range(end - 1, first, -1):
            if self.seqs[index] == self.seqs[index - 1]:
                del self.bounds[index], self.seqs[index]

    def ranges(self, low: int, high: int) -> list[MarkRange]:
        out = []
        index = bisect_right(self.bounds, low) - 1
        while index < len(self.bounds) and self.bounds[index] < high:
            upper = self.bounds[index + 1] if index + 1 < len(self.bounds) else HASH_SPACE
            out.append(MarkRange(max(self.bounds[index], low), min(upper, high), self.seqs[index]))
            index += 1
        return out


class Marks:
    """The marks of every producer over the hash space, or over the part of it that one reader has.

    Not thread-safe: its reader owns it. Bounded by ``prune``.
    """

    __slots__ = ("_producers",)

    def __init__(self) -> None:
        self._producers: dict[str, _Steps] = {}

    def judge(self, producer: str, first_seq: int, last_seq: int, low: int, high: int) -> tuple[Verdict, list[MarkRange]]:
        """Judge a message with sequences first..last of ``producer`` in a shard of hash keys [low, high).

        Returns the verdict and the marks of that range: for PARTLY, a record with hash key h and sequence s is a repeat
        if and only if ``s <= seq`` of the MarkRange that holds h (see ``is_repeat``).
        """
        steps = self._producers.get(producer)
        if steps is None:
            return Verdict.ACCEPT, [MarkRange(low, high, NO_MARK)]
        ranges = steps.ranges(low, high)
        if all(r.seq < first_seq for r in ranges):
            return Verdict.ACCEPT, ranges
        if all(r.seq >= last_seq for r in ranges):
            return Verdict.REPEAT, ranges
        return Verdict.PARTLY, ranges

    def accept(self, producer: str, last_seq: int, low: int, high: int, seen_at_ms: int = 0) -> None:
        """Everything of ``producer`` up to ``last_seq`` in [low, high) is accepted: a shard is fed in sequence order."""
        steps = self._producers.get(producer)
        if steps is None:
            steps = self._producers[producer] = _Steps()
        steps.set_range(low, high, last_seq)
        steps.last_seen_ms = max(steps.last_seen_ms, seen_at_ms)

    def prune(self, silent_since_ms: int) -> int:
        """Forget producers not seen since that time (by their own stamps). Returns how many went."""
        silent = [name for name, steps in self._producers.items() if steps.last_seen_ms < silent_since_ms]
        for name in silent:
            del self._producers[name]
        return len(silent)

    def replace(self, low: int, high: int, other: Marks) -> None:
        """Set the marks of [low, high) to those of ``other`` there: taking a shard over from another reader."""
        for name in self._producers.keys() | other._producers.keys():
            steps = self._producers.setdefault(name, _Steps())
            theirs = other._producers.get(name)
            for r in theirs.ranges(low, high) if theirs else [MarkRange(low, high, NO_MARK)]:
                steps.set_range(r.low, r.high, r.seq, raise_only=False)
            if theirs:
                steps.last_seen_ms = max(steps.last_seen_ms, theirs.last_seen_ms)

    def copy(self) -> Marks:
        return Marks.from_json(self.to_json())

    def to_json(self, low: int = 0, high: int = HASH_SPACE) -> dict[str, Any]:
        """The marks of [low, high) as plain values. Hash keys are decimal strings: JSON numbers end at 2**53."""
        out: dict[str, Any] = {}
        for name, steps in self._producers.items():
            ranges = [[str(r.low), str(r.high), r.seq] for r in steps.ranges(low, high) if r.seq != NO_MARK]
            if ranges:
                out[name] = {"seen": steps.last_seen_ms, "ranges": ranges}
        return out

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Marks:
        """The inverse of ``to_json``."""
        marks = cls()
        for name, producer in data.items():
            steps = marks._producers[name] = _Steps()
            steps.last_seen_ms = int(producer["seen"])
            for low, high, seq in producer["ranges"]:
                steps.set_range(int(low), int(high), int(seq), raise_only=False)
        return marks

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Marks) and self.to_json() == other.to_json()

    __hash__ = None  # type: ignore[assignment]

    def __len__(self) -> int:
        return len(self._producers)

    def __repr__(self) -> str:
        return f"Marks({len(self)} producers)"


def is_repeat(ranges: Iterable[MarkRange], hash_key: int, seq: int) -> bool:
    """Whether a record of a PARTLY repeated message was accepted before. A hash key outside all ranges was not."""
    return any(r.low <= hash_key < r.high and seq <= r.seq for r in ranges)
