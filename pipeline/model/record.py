"""Values that callers see: a record as it is read, a receipt as it is acknowledged, and the token that orders both."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from pipeline.model.keys import HASH_HEADER

TRACE_HEADER, TRACE_STATE_HEADER = "traceparent", "tracestate"  # W3C trace context
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True, order=True)
class OrderToken:
    """Strictly increasing along every partition key's path through a strict stream: (generation of the shard, offset in
    its partition, index in the aggregate). Compares as a tuple."""

    generation: int
    offset: int
    index: int


@dataclass(frozen=True, slots=True)
class Receipt:
    """An acknowledged record: it is in the stream, at this place. ``offset`` and ``order`` are None where the broker
    acknowledged without naming an offset (it had the message from an earlier try)."""

    shard: str
    partition: int
    offset: int | None
    index: int
    seq: int
    order: OrderToken | None


@dataclass(frozen=True, slots=True)
class FirstLife:
    """What a redriven record was when it came first. ``place`` is where that was, (topic, partition); None where a redrive of
    an older version did not tell."""

    order: OrderToken
    producer: str
    seq: int
    place: tuple[str, int] | None = None


@dataclass(slots=True)
class Origin:
    """What the records of one message have in common, and the columns that they share out lazily.

    ``seqs`` are relative to ``first_seq``. ``headers`` is None where no record has any. ``first_lives`` tells of redriven
    records, by index: their order token and identity are those that they had first (DESIGN.md §5).
    """

    topic: str
    partition: int
    offset: int
    shard: str
    generation: int
    producer: str
    schema_id: int
    first_seq: int
    seqs: Sequence[int]
    ids: Sequence[str | None]
    salts: Sequence[int]
    times_ms: Sequence[int]
    headers: Sequence[list[tuple[str, bytes | None]]] | None = None
    first_lives: Mapping[int, FirstLife] = field(default_factory=dict)


class Record:
    """A record as a consumer gets it. ``value`` is None for a tombstone. ``id`` is the caller's dedup id; without one,
    (producer, seq) identifies the record. ``order`` rises strictly along a key of a strict stream.

    Its fields are computed when they are asked for: a consumer makes a million of these a second.
    """

    __slots__ = ("_origin", "index", "key", "value")

    def __init__(self, origin: Origin, index: int, key: str, value: Any) -> None:
        self._origin = origin
        self.index = index
        self.key = key
        self.value = value

    @property
    def id(self) -> str | None:
        return self._origin.ids[self.index]

    @property
    def headers(self) -> list[tuple[str, bytes | None]]:
        headers = self._origin.headers
        return [] if headers is None else [header for header in headers[self.index] if header[0] != HASH_HEADER]

    def header(self, name: str) -> str | None:
        """The first header of this name, as text; None where there is none, or where it holds none."""
        headers = self._origin.headers
        for found, content in () if headers is None else headers[self.index]:
            if found == name:
                return None if content is None else content.decode("utf-8", "replace")
        return None

    @property
    def traceparent(self) -> str | None:
        """W3C trace context of the span that put it, where it carries one."""
        return self.header(TRACE_HEADER)

    @property
    def produced_at_ms(self) -> int:
        """When it was put: Unix epoch milliseconds of its producer's clock."""
        return self._origin.times_ms[self.index]

    @property
    def produced_at(self) -> datetime:
        """The same in UTC. Raises OverflowError for a time outside the years 1 to 9999."""
        return EPOCH + timedelta(milliseconds=self.produced_at_ms)

    @property
    def topic(self) -> str:
        return self._origin.topic

    @property
    def shard(self) -> str:
        return self._origin.shard

    @property
    def partition(self) -> int:
        return self._origin.partition

    @property
    def offset(self) -> int:
        return self._origin.offset

    @property
    def order(self) -> OrderToken:
        origin = self._origin
        first = origin.first_lives.get(self.index)
        return first.order if first is not None else OrderToken(origin.generation, origin.offset, self.index)

    @property
    def producer(self) -> str:
        origin = self._origin
        first = origin.first_lives.get(self.index)
        return first.producer if first is not None else origin.producer

    @property
    def seq(self) -> int:
        origin = self._origin
        first = origin.first_lives.get(self.index)
        return first.seq if first is not None else origin.first_seq + origin.seqs[self.index]

    @property
    def redriven(self) -> bool:
        """Whether it comes back from the dead letters."""
        return self.index in self._origin.first_lives

    @property
    def salt(self) -> int:
        return self._origin.salts[self.index]

    @property
    def schema_id(self) -> int:
        return self._origin.schema_id

    def __repr__(self) -> str:
        """Where it is, not what is in it: a repr ends in logs."""
        origin = self._origin
        return f"Record({origin.topic}[{origin.partition}] at {origin.offset}, index {self.index})"
