"""The two sides of a connector: what can be read from a position, and what can be written once.

A *position* counts a source's records from 0 in an order that never changes: reading the same source again gives the
same record at the same position. A producer that uses positions as its sequence numbers makes the same dedup ids again
after a crash, so what it repeats is recognised.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol


@dataclass(frozen=True, slots=True)
class Chunk:
    """Consecutive records of a source: ``values[i]`` is at position ``first_position + i`` and has partition key ``keys[i]``."""

    first_position: int
    keys: Sequence[str]
    values: Sequence[dict[str, Any]]

    def __len__(self) -> int:
        return len(self.values)

    @property
    def next_position(self) -> int:
        """The position after the last record of this chunk."""
        return self.first_position + len(self.values)


class Source(Protocol):
    """Records that can be read from a position on, as often as wanted, always the same."""

    def __len__(self) -> int:
        """How many records there are: positions 0 to ``len(source) - 1``."""
        ...

    def read(self, position: int, *, chunk_records_max: int = ...) -> Iterator[Chunk]:
        """The records from ``position`` on, in order, without gaps; memory is bounded by the size of a chunk."""
        ...


class Sink(Protocol):
    """A place that takes records idempotently: what it already holds is not applied again."""

    def position(self) -> int:
        """Everything up to and including this position is durable; -1 at first."""
        ...

    def write(self, chunk: Chunk) -> None:
        """Apply a chunk and remember its last position in one step; records at or below :meth:`position` are skipped."""
        ...
