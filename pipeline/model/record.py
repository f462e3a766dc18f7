"""Values that callers see: a record as it is read, a receipt as it is acknowledged, and the token that orders both."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


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


@dataclass(slots=True)
class Record:
    """A record as a consumer gets it. ``value`` is None for a tombstone. ``id`` is the caller's dedup id; without one,
    (producer, seq) identifies the record. Times are Unix epoch milliseconds."""

    key: str
    value: Any
    id: str | None
    headers: list[tuple[str, bytes | None]]
    produced_at_ms: int
    shard: str
    partition: int
    offset: int
    index: int
    order: OrderToken
    producer: str
    seq: int
    salt: int = 0
    schema_id: int = -1
    topic: str = field(default="", repr=False)
