"""The encoded records of one aggregate: each a sequence, counted from the first, and an entry. Owned by the producer's lock."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from pipeline.compiled import core
from pipeline.schema.varint import RELATIVE, unzigzag


class Entries(Protocol):
    """``size_bytes`` is that of the entries. Once ``let_go``, there are no bodies and no content; sequences stay."""

    first_seq: int
    size_bytes: int

    @property
    def count(self) -> int: ...

    def add(self, relative_seq: int, body: bytes, /) -> None:
        """One record more. Raises OverflowError where its sequence does not fit into an Avro int."""

    def seq_at(self, index: int, /) -> int: ...

    def bodies(self, step: int = 1, /) -> list[bytes]:
        """The entries, or each ``step``th of them, each without its sequence."""

    def content(self) -> Sequence[bytes | memoryview]:
        """Entries with their sequences, in a row, as the message carries them."""

    def let_go(self) -> None: ...


class Parts:
    """Two byte strings a record, as they stand in the message."""

    __slots__ = ("_parts", "_relative", "first_seq", "size_bytes")

    def __init__(self) -> None:
        self.first_seq = self.size_bytes = 0
        self._parts: list[bytes] = []
        self._relative: list[bytes] = []  # what is left once let go

    @property
    def count(self) -> int:
        return len(self._parts) >> 1 or len(self._relative)

    def add(self, relative_seq: int, body: bytes, /) -> None:
        self._parts += (RELATIVE[relative_seq], body)
        self.size_bytes += len(body)

    def seq_at(self, index: int, /) -> int:
        return self.first_seq + unzigzag(self._parts[2 * index] if self._parts else self._relative[index])

    def bodies(self, step: int = 1, /) -> list[bytes]:
        return self._parts[1 :: 2 * step]

    def content(self) -> Sequence[bytes]:
        return self._parts

    def let_go(self) -> None:
        self._relative = self._parts[::2]
        self._parts = []


class Block:
    """Records encoded in one go (columns.py): entry i, its sequence before it, ends at ``ends[i]``; sequences count from
    ``places[0]``. Takes no more records."""

    __slots__ = ("_body", "_ends", "_places", "first_seq", "size_bytes")

    def __init__(self, body: memoryview, ends: memoryview, places: memoryview, first_seq: int) -> None:
        self._body: memoryview | None = body
        self._ends = ends
        self._places = places
        self.first_seq = first_seq
        self.size_bytes: int = ends[-1]

    @property
    def count(self) -> int:
        return len(self._places)

    def add(self, relative_seq: int, body: bytes, /) -> None:
        raise TypeError("records encoded in one go take no more")

    def seq_at(self, index: int, /) -> int:
        return self.first_seq + int(self._places[index] - self._places[0])

    def bodies(self, step: int = 1, /) -> list[bytes]:
        if self._body is None:
            return []
        first, found = self._places[0], []
        for index in range(0, len(self._ends), step):
            start = (self._ends[index - 1] if index else 0) + len(RELATIVE[self._places[index] - first])
            found.append(bytes(self._body[start : self._ends[index]]))
        return found

    def content(self) -> Sequence[bytes | memoryview]:
        return () if self._body is None else (self._body[: self._ends[-1]],)

    def let_go(self) -> None:
        self._body, self._ends = None, memoryview(b"")


def new_entries() -> Entries:
    """Empty ones: compiled where that was built."""
    return Parts() if core is None else core.Entries()
