"""Packing: one open aggregate a shard, sealed by bytes, count or linger (pure: the time comes in).

The bound in bytes is on the uncompressed body. A record larger than it goes alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from pipeline.config import Aggregation
from pipeline.produce.aggregate import Aggregate, WaitingRecord

RELATIVE_SEQ_MAX = 2**31 - 1  # an entry's sequence is an Avro int, counted from the aggregate's first


class Packer:
    """The open aggregates of one producer. Owned by its lock."""

    def __init__(self, aggregation: Aggregation | None) -> None:
        limits = aggregation or Aggregation(records_max=1, linger_ms=0)
        self.bytes_max = limits.bytes_max
        self.records_max = limits.records_max
        self.linger_ms = limits.linger_ms
        self._open: dict[str, Aggregate] = {}

    def add(self, shard: str, seq: int, hash_key: int, body: bytes, now_ms: int) -> tuple[Aggregate, int, list[Aggregate]]:
        """Put a record into its shard's open aggregate. Returns (aggregate, index, aggregates sealed by this)."""
        sealed: list[Aggregate] = []
        aggregate = self._open.get(shard)
        if aggregate is not None and (
            aggregate.size_bytes + len(body) > self.bytes_max or seq - aggregate.first_seq > RELATIVE_SEQ_MAX
        ):
            sealed.append(self._open.pop(shard))
            aggregate = None
        if aggregate is None:
            aggregate = self._open[shard] = Aggregate(shard, now_ms)
        index = aggregate.append(seq, hash_key, body)
        if index + 1 >= self.records_max or aggregate.size_bytes >= self.bytes_max:
            sealed.append(self._open.pop(shard))
        return aggregate, index, sealed

    def due(self, now_ms: int) -> list[Aggregate]:
        """Seal what has lingered long enough."""
        return [self._open.pop(s) for s in list(self._open) if now_ms >= self._open[s].created_ms + self.linger_ms]

    def next_deadline_ms(self) -> int | None:
        """When the next open aggregate is due; None without one."""
        first = min((aggregate.created_ms for aggregate in self._open.values()), default=None)
        return None if first is None else first + self.linger_ms

    def seal(self, shards: Iterable[str] | None = None) -> list[Aggregate]:
        """Seal the open aggregates of these shards, or of all."""
        names = list(self._open) if shards is None else [s for s in shards if s in self._open]
        return [self._open.pop(shard) for shard in names]

    def open_shards(self) -> list[str]:
        return list(self._open)

    def lowest_seq(self) -> int | None:
        return min((aggregate.first_seq for aggregate in self._open.values()), default=None)

    def repack(self, shard: str, records: Sequence[WaitingRecord], now_ms: int) -> Iterator[Aggregate]:
        """Pack records taken out of other aggregates, in the order given, within the same bounds."""
        aggregate = Aggregate(shard, now_ms)
        for record in records:
            if aggregate.count and (
                aggregate.size_bytes + len(record.body) > self.bytes_max
                or aggregate.count >= self.records_max
                or record.seq - aggregate.first_seq > RELATIVE_SEQ_MAX
            ):
                yield aggregate
                aggregate = Aggregate(shard, now_ms)
            aggregate.take_in(record)
        if aggregate.count:
            yield aggregate
