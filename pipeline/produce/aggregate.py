"""An aggregate being filled, then on its way: the parcel that settling moves about.

Its records stay as encoded bytes until the producer acknowledges them, since a void aggregate's records are packed again
for other shards. A receipt points at (aggregate, index) and follows ``moved`` when that happens.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum

from pipeline.errors import HeadraceError


class State(Enum):
    WAITING = "waiting"
    ACKNOWLEDGED = "acknowledged"
    FAILED = "failed"
    MOVED = "moved"


class WaitingRecord:
    """A record taken out of an aggregate that its shard did not take; ``body`` is its encoded entry after ``seq``."""

    __slots__ = ("body", "hash_key", "index", "origin", "seq")

    def __init__(self, seq: int, hash_key: int, body: bytes, origin: Aggregate, index: int) -> None:
        self.seq = seq
        self.hash_key = hash_key
        self.body = body
        self.origin = origin
        self.index = index


class Aggregate:
    """Records of one shard in sequence order. Owned by its producer's lock."""

    __slots__ = (
        "_moved_to",
        "bodies",
        "created_ms",
        "error",
        "hash_keys",
        "offset",
        "previous_seq",
        "seqs",
        "shard",
        "size_bytes",
        "state",
    )

    def __init__(self, shard: str, created_ms: int) -> None:
        self.shard = shard
        self.created_ms = created_ms
        self.seqs: list[int] = []
        self.hash_keys: list[int] = []
        self.bodies: list[bytes] = []
        self.size_bytes = 0
        self.previous_seq: int | None = None  # of the stamp; set when first handed over, kept when sent again
        self.state = State.WAITING
        self.offset: int | None = None
        self.error: HeadraceError | None = None
        self._moved_to: list[tuple[Aggregate, int]] = []

    def append(self, seq: int, hash_key: int, body: bytes) -> int:
        """Add a record; returns its index."""
        index = len(self.seqs)
        self.seqs.append(seq)
        self.hash_keys.append(hash_key)
        self.bodies.append(body)
        self.size_bytes += len(body)
        return index

    @property
    def count(self) -> int:
        return len(self.seqs)

    @property
    def first_seq(self) -> int:
        return self.seqs[0]

    @property
    def last_seq(self) -> int:
        return self.seqs[-1]

    def entries(self) -> list[tuple[int, bytes]]:
        """(sequence relative to the first, encoded entry after it), as the envelope carries them."""
        first = self.seqs[0]
        return [(seq - first, body) for seq, body in zip(self.seqs, self.bodies, strict=True)]

    def records(self) -> Sequence[WaitingRecord]:
        """Take the records out; they will stand elsewhere (see ``take_in``)."""
        self._moved_to = [(self, index) for index in range(self.count)]
        self.state = State.MOVED
        return [
            WaitingRecord(seq, hash_key, body, self, index)
            for index, (seq, hash_key, body) in enumerate(zip(self.seqs, self.hash_keys, self.bodies, strict=True))
        ]

    def take_in(self, record: WaitingRecord) -> None:
        """Add a record that was taken out of another aggregate, and leave word there."""
        index = self.append(record.seq, record.hash_key, record.body)
        record.origin._moved_to[record.index] = (self, index)

    def resolve(self, index: int) -> tuple[Aggregate, int]:
        """Where the record that was put here stands now."""
        aggregate = self
        while aggregate.state is State.MOVED:
            following, index_there = aggregate._moved_to[index]
            if following is aggregate:
                break  # taken out, not yet packed again
            aggregate, index = following, index_there
        return aggregate, index

    def fail(self, error: HeadraceError) -> None:
        self.state, self.error = State.FAILED, error

    def acknowledge(self, offset: int | None) -> None:
        """It is in the stream: the encoded records are not needed any more."""
        self.state, self.offset = State.ACKNOWLEDGED, offset
        self.bodies = []
        self.hash_keys = []
