"""Packing: one open aggregate a shard, sealed by bytes, count or linger (pure: the time comes in).

The bound in bytes is on the uncompressed body. A record larger than it goes alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from pipeline.config import Aggregation
from pipeline.produce.aggregate import Aggregate, WaitingRecord
from pipeline.produce.entries import Parts
from pipeline.produce.receipt import Settled

RELATIVE_SEQ_MAX = 2**31 - 1  # an entry's sequence is an Avro int, counted from the aggregate's first


class Lane:
    """A shard's open aggregate. Without one, ``open`` is ``FULL``, which takes no record."""

    __slots__ = ("open", "shard")

    def __init__(self, shard: str) -> None:
        self.shard = shard
        self.open = FULL


FULL = Aggregate("", 0, entries=Parts())
FULL.entries.size_bytes = 1 << 62


class Packer:
    """The open aggregates of one producer. Owned by its lock."""

    def __init__(self, aggregation: Aggregation | None, settled: Settled | None = None) -> None:
        limits = aggregation or Aggregation(records_max=1, linger_ms=0)
        self.bytes_max = limits.bytes_max
        self.records_max = limits.records_max
        self.linger_ms = limits.linger_ms
        self._settled = settled
        self._lanes: dict[str, Lane] = {}

    def lane(self, shard: str) -> Lane:
        """The lane of a shard, made where there is none. It stays the shard's for as long as the shard is a leaf."""
        found = self._lanes.get(shard)
        if found is None:
            found = self._lanes[shard] = Lane(shard)
        return found

    def keep(self, shards: Iterable[str]) -> None:
        """Forget the empty lanes of all other shards: those were resharded away."""
        known = set(shards)
        self._lanes = {shard: lane for shard, lane in self._lanes.items() if shard in known or lane.open is not FULL}

    def add(self, shard: str, seq: int, hashed: int | None, body: bytes, now_ms: int) -> tuple[Aggregate, int, list[Aggregate]]:
        """Put a record into its shard's open aggregate. Returns (aggregate, index, aggregates sealed by this)."""
        sealed: list[Aggregate] = []
        lane = self.lane(shard)
        aggregate = lane.open
        if aggregate is FULL or (
            aggregate.size_bytes + len(body) > self.bytes_max or seq - aggregate.first_seq > RELATIVE_SEQ_MAX
        ):
            if aggregate is not FULL:
                sealed.append(aggregate)
            aggregate = lane.open = Aggregate(shard, now_ms, self._settled)
        index = aggregate.append(seq, hashed, body)
        if index + 1 >= self.records_max or aggregate.size_bytes >= self.bytes_max:
            sealed.append(aggregate)
            lane.open = FULL
        return aggregate, index, sealed

    def due(self, now_ms: int) -> list[Aggregate]:
        """Seal what has lingered long enough."""
        return [self._take(lane) for lane in self._filled() if now_ms >= lane.open.created_ms + self.linger_ms]

    def next_deadline_ms(self) -> int | None:
        """When the next open aggregate is due; None without one."""
        first = min((lane.open.created_ms for lane in self._filled()), default=None)
        return None if first is None else first + self.linger_ms

    def seal(self, shards: Iterable[str] | None = None) -> list[Aggregate]:
        """Seal the open aggregates of these shards, or of all."""
        names = None if shards is None else set(shards)
        return [self._take(lane) for lane in self._filled() if names is None or lane.shard in names]

    def open_shards(self) -> list[str]:
        return [lane.shard for lane in self._filled()]

    def lowest_seq(self) -> int | None:
        return min((lane.open.first_seq for lane in self._filled()), default=None)

    def repack(self, shard: str, records: Sequence[WaitingRecord], now_ms: int) -> Iterator[Aggregate]:
        """Pack records taken out of other aggregates, in the order given, within the same bounds."""
        aggregate = Aggregate(shard, now_ms)
        for record in records:
            if aggregate.count and (
                aggregate.claim is not None
                or record.claim is not None
                or aggregate.size_bytes + len(record.body) > self.bytes_max
                or aggregate.count >= self.records_max
                or record.seq - aggregate.first_seq > RELATIVE_SEQ_MAX
            ):
                yield aggregate
                aggregate = Aggregate(shard, now_ms)
            aggregate.take_in(record)
        if aggregate.count:
            yield aggregate

    def _filled(self) -> list[Lane]:
        return [lane for lane in self._lanes.values() if lane.open is not FULL]

    def _take(self, lane: Lane) -> Aggregate:
        aggregate, lane.open = lane.open, FULL
        return aggregate
