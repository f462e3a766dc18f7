"""Stamping: what a message's header says of its aggregate (pure: the time comes in)."""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.model.stamp import Stamp
from pipeline.produce.aggregate import Aggregate
from pipeline.schema.framing import frame
from pipeline.schema.varint import zigzag


def message_of(schema_id: int, count: int, content: Sequence[bytes | memoryview]) -> bytes:
    """The message that carries an aggregate of ``count`` entries."""
    return b"".join((frame(schema_id, b""), zigzag(count), *content, b"\x00"))


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
