"""An aggregate being filled, then on its way: the parcel that settling moves about.

Its records stay as encoded bytes until the producer acknowledges them, since a void aggregate's records are packed again
for other shards. A receipt points at (aggregate, index) and follows ``moved`` when that happens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

from pipeline.errors import HeadraceError
from pipeline.schema.entry import entry_hash_key
from pipeline.schema.varint import RELATIVE, unzigzag

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


@dataclass(frozen=True, slots=True)
class Block:
    """Records encoded in one go (columns.py): entries with their sequence, one behind the other. Entry i ends at ``ends[i]``;
    sequences count from ``places[0]``."""

    body: memoryview
    ends: memoryview
    places: memoryview

    def entries(self, step: int = 1) -> list[bytes]:
        """The entries, or each ``step``th of them, each without its sequence."""
        first, found = self.places[0], []
        for index in range(0, len(self.ends), step):
            start = (self.ends[index - 1] if index else 0) + len(RELATIVE[self.places[index] - first])
            found.append(bytes(self.body[start : self.ends[index]]))
        return found


class Aggregate:
    """Records of one shard in sequence order. Owned by its producer's lock.

    ``parts`` holds two byte strings a record, as they stand in the message: its sequence counted from ``first_seq``, and its
    entry. ``put`` appends to it by hand (producer.py): a call for each record would be felt there.
    """

    __slots__ = (
        "_block",
        "_hashed",
        "_moved_to",
        "_places",
        "_relative",
        "claim",
        "created_ms",
        "error",
        "first_seq",
        "handed_over",
        "offset",
        "parts",
        "previous_seq",
        "sent_ms",
        "settled",
        "shard",
        "size_bytes",
        "state",
    )

    def __init__(self, shard: str, created_ms: int, settled: Settled | None = None) -> None:
        self.shard = shard
        self.created_ms = created_ms
        self.settled = settled
        self.first_seq = 0
        self.claim: bytes | None = None  # a reference to its only record, which lies in a claim store; ``parts`` route it
        self.parts: list[bytes] = []
        self.size_bytes = 0  # of the entries
        self.previous_seq: int | None = None  # of the stamp; set when first handed over, kept when sent again
        self.handed_over = False  # to a client at some time: its records may be in the log
        self.sent_ms: int | None = None  # when it was last handed over
        self.state = State.WAITING
        self.offset: int | None = None
        self.error: HeadraceError | None = None
        self._hashed: dict[int, int] = {}  # by index, only where the caller gave the hash key
        self._relative: list[bytes] = []  # what is left of ``parts`` after the acknowledgement
        self._block: Block | None = None  # instead of ``parts``
        self._places: memoryview | None = None
        self._moved_to: list[tuple[Aggregate, int]] = []

    def fill(self, block: Block) -> None:
        """Take records that were encoded in one go: all that this aggregate will hold."""
        self._block, self._places = block, block.places
        self.size_bytes = block.ends[-1]

    def content(self) -> Sequence[bytes | memoryview]:
        """Its entries with their sequences, in a row, as the message carries them."""
        return self.parts if self._block is None else (self._block.body[: self._block.ends[-1]],)

    def append(self, seq: int, hashed: int | None, body: bytes) -> int:
        """Add a record; returns its index. ``hashed`` is a hash key given by the caller."""
        index = len(self.parts) >> 1
        if not index:
            self.first_seq = seq
        self.parts += (RELATIVE[seq - self.first_seq], body)
        if hashed is not None:
            self._hashed[index] = hashed
        self.size_bytes += len(body)
        return index

    @property
    def count(self) -> int:
        if self._places is not None:
            return len(self._places)
        return len(self.parts) >> 1 or len(self._relative)

    @property
    def last_seq(self) -> int:
        return self.seq_at(self.count - 1)

    @property
    def seqs(self) -> list[int]:
        """The sequences of its records."""
        return [self.seq_at(index) for index in range(self.count)]

    def seq_at(self, index: int) -> int:
        if self._places is not None:
            return self.first_seq + int(self._places[index] - self._places[0])
        return self.first_seq + unzigzag(self.parts[2 * index] if self.parts else self._relative[index])

    @property
    def bodies(self) -> list[bytes]:
        """The encoded entries of its records; none once it is acknowledged."""
        return self.parts[1::2] if self._block is None else self._block.entries()

    def sample(self, most: int) -> list[bytes]:
        """Encoded entries of at most ``most`` records, evenly spread."""
        step = -(-self.count // most)
        return self.parts[1 :: 2 * step] if self._block is None else self._block.entries(step)

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
        return [
            WaitingRecord(seq, self._hashed.get(index), body, self, index)
            for index, (seq, body) in enumerate(zip(self.seqs, self.bodies, strict=True))
        ]

    def take_in(self, record: WaitingRecord) -> None:
        """Add a record that was taken out of another aggregate, and leave word there."""
        if not self.parts:
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
        self._relative = self.parts[::2]
        self.parts = []
        self._block = None
        self._hashed = {}
