"""Stamping: what a message's header says of its aggregate, and the message (pure: the time comes in)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.model.stamp import CLAIM_HEADER, STAMP_HEADER, Stamp, encode_stamp
from pipeline.produce.aggregate import Aggregate
from pipeline.schema.entry import entry_key_bytes, plain_record
from pipeline.schema.framing import frame
from pipeline.schema.varint import zigzag


def message_of(schema_id: int, count: int, content: Sequence[bytes | memoryview]) -> bytes:
    """The message that carries an aggregate of ``count`` entries."""
    return b"".join((frame(schema_id, b""), zigzag(count), *content, b"\x00"))


@dataclass(frozen=True, slots=True)
class Message:
    """What goes to Kafka. ``timestamp_ms`` 0 is the time of sending."""

    key: bytes
    value: bytes | None
    headers: list[tuple[str, bytes | None]]
    timestamp_ms: int = 0

    @property
    def size_bytes(self) -> int:
        return len(self.value or b"")


@dataclass(frozen=True, slots=True)
class Messages:
    """How a stream's aggregates become messages. ``schema_id`` is that of aggregates, ``plain_id`` that of their values;
    ``by_key`` where no record is aggregated (``aggregation: none``)."""

    schema_id: int
    plain_id: int
    by_key: bool = False

    def of(self, aggregate: Aggregate, stamp: Stamp) -> Message:
        """A record that goes alone is a plain message by its partition key (DESIGN.md §4), or, where it says what such a message
        has no place for, an aggregate of one. ``by_key``, that has the same key, since the topic may be a compacted one."""
        headers: list[tuple[str, bytes | None]] = [(STAMP_HEADER, encode_stamp(stamp))]
        key = entry_key_bytes(aggregate.bodies[0]) if self.by_key else aggregate.shard.encode()
        if aggregate.claim is not None:
            return Message(key, aggregate.claim, [*headers, (CLAIM_HEADER, b"")])
        if aggregate.count == 1 and (plain := plain_record(aggregate.bodies[0])) is not None:
            value = None if plain.value is None else frame(self.plain_id, plain.value)
            return Message(plain.key, value, headers + plain.headers, plain.timestamp_ms)
        return Message(key, message_of(self.schema_id, aggregate.count, aggregate.entries.content()), headers)


class Stamper:
    """Stamps of one incarnation of a producer. Not thread-safe: the sender's."""

    def __init__(self, producer: str, incarnation: int) -> None:
        self._producer = producer
        self._incarnation = incarnation
        self._last_seq: dict[str, int] = {}

    def stamp(self, aggregate: Aggregate, now_ms: int) -> Stamp:
        """An aggregate that is sent again keeps its ``previous_seq``: a reader looks for holes by it."""
        if aggregate.previous_seq is None:
            aggregate.previous_seq = self._last_seq.get(aggregate.shard, -1)
            self._last_seq[aggregate.shard] = aggregate.last_seq
        return Stamp(
            aggregate.shard,
            self._producer,
            self._incarnation,
            aggregate.first_seq,
            aggregate.last_seq,
            aggregate.previous_seq,
            aggregate.count,
            now_ms,
        )
