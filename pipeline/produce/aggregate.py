"""An aggregate being filled, then on its way: the parcel that settling moves about.

Its records stay as encoded bytes until the producer acknowledges them, since a void aggregate's records are packed again
for other shards. A receipt points at (aggregate, index) and follows ``moved`` when that happens.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from typing import TYPE_CHECKING

from pipeline.errors import HeadraceError
from pipeline.produce.entries import Entries, new_entries
from pipeline.schema.entry import entry_hash_key

if TYPE_CHECKING:
    from pipeline.produce.receipt import Settled


class State(Enum):
    WAITING = "waiting"
    ACKNOWLEDGED = "acknowledged"
    FAILED = "failed"
    MOVED = "moved"


class WaitingRecord:
    """A record taken out of an aggregate that its shard did not take; ``body`` is its encoded entry after ``seq``.
    ``hashed`` is the hash key that its caller gave instead of its key's own."""

    __slots__ = ("body", "claim", "hash_key", "hashed", "index", "origin", "seq")

    def __init__(self, seq: int, hashed: int | None, body: bytes, origin: Aggregate, index: int) -> None:
        self.claim = origin.claim
        self.seq = seq
        self.hash_key = entry_hash_key(body) if hashed is None else hashed
        self.hashed = hashed
        self.body = body
        self.origin = origin
        self.index = index


class Aggregate:
    """Records of one shard in sequence order. Owned by its producer's lock."""

    __slots__ = (
        "_hashed",
        "_moved_to",
        "claim",
        "created_ms",
        "entries",
        "error",
        "handed_over",
        "offset",
        "previous_seq",
        "sent_ms",
        "settled",
        "shard",
        "state",
    )

    def __init__(
        self, shard: str, created_ms: int, settled: Settled | None = None, entries: Entries | None = None
    ) -> None:
        self.shard = shard
        self.created_ms = created_ms
        self.settled = settled
        self.claim: bytes | None = None  # a reference to its only record, which lies in a claim store; ``entries`` route it
        self.entries = new_entries() if entries is None else entries
        self.previous_seq: int | None = None  # of the stamp; set when first handed over, kept when sent again
        self.handed_over = False  # to a client at some time: its records may be in the log
        self.sent_ms: int | None = None  # when it was last handed over
        self.state = State.WAITING
        self.offset: int | None = None
        self.error: HeadraceError | None = None
        self._hashed: dict[int, int] = {}  # by index, only where the caller gave the hash key
        self._moved_to: list[tuple[Aggregate, int]] = []

    def append(self, seq: int, hashed: int | None, body: bytes) -> int:
        """Add a record; returns its index. ``hashed`` is a hash key given by the caller."""
        entries = self.entries
        index = entries.count
        if not index:
            entries.first_seq = seq
        entries.add(seq - entries.first_seq, body)
        if hashed is not None:
            self._hashed[index] = hashed
        return index

    @property
    def count(self) -> int:
        return self.entries.count

    @property
    def size_bytes(self) -> int:
        """Of the entries."""
        return self.entries.size_bytes

    @property
    def first_seq(self) -> int:
        return self.entries.first_seq

    @property
    def last_seq(self) -> int:
        return self.seq_at(self.count - 1)

    @property
    def seqs(self) -> list[int]:
        """The sequences of its records."""
        return [self.seq_at(index) for index in range(self.count)]

    def seq_at(self, index: int) -> int:
        return self.entries.seq_at(index)

    @property
    def bodies(self) -> list[bytes]:
        """The encoded entries of its records; none once it is acknowledged."""
        return self.entries.bodies()

    def sample(self, most: int) -> list[bytes]:
        """Encoded entries of at most ``most`` records, evenly spread."""
        return self.entries.bodies(-(-self.count // most))

    @property
    def hash_keys(self) -> list[int]:
        """Where its records stand in the hash space."""
        return [
            self._hashed[index] if index in self._hashed else entry_hash_key(body) for index, body in enumerate(self.bodies)
        ]

    def records(self) -> Sequence[WaitingRecord]:
        """Take the records out; they will stand elsewhere (see ``take_in``)."""
        self._moved_to = [(self, index) for index in range(self.count)]
        self.state = State.MOVED
        taken = [
            WaitingRecord(seq, self._hashed.get(index), body, self, index)
            for index, (seq, body) in enumerate(zip(self.seqs, self.bodies, strict=True))
        ]
        self.entries.let_go()
        return taken

    def take_in(self, record: WaitingRecord) -> None:
        """Add a record that was taken out of another aggregate, and leave word there."""
        if not self.count:
            self.created_ms = record.origin.created_ms
            self.settled = record.origin.settled
        self.claim = record.claim
        self.handed_over |= record.origin.handed_over
        index = self.append(record.seq, record.hashed, record.body)
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
        self._let_go()

    def acknowledge(self, offset: int | None) -> None:
        """It is in the stream: the encoded records are not needed any more."""
        self.state, self.offset = State.ACKNOWLEDGED, offset
        self._let_go()

    def _let_go(self) -> None:
        self.entries.let_go()
        self._hashed = {}
