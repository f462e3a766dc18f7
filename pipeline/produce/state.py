"""What a producer's threads share, under one lock: the open aggregates, what is under way, the bound on memory.

Three threads use it: the callers' (put, flush), the sender's (send.py) and the settler's (settle.py). Nothing here waits
for the network.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass

from pipeline import metrics
from pipeline.config import StreamConfig
from pipeline.errors import BufferFullError, ClosedError, HeadraceError
from pipeline.model.settling import Settling
from pipeline.model.shards import ShardMap, ShardState
from pipeline.produce.aggregate import Aggregate, WaitingRecord
from pipeline.produce.pack import Packer
from pipeline.produce.receipt import Settled
from pipeline.produce.route import Router

# What a buffered record takes besides its bytes: list slots, numbers and object headers (measured).
RECORD_OVERHEAD_BYTES = 160


@dataclass(slots=True)
class ProducerStats:
    """Counters since the producer started. ``void_resent`` are records whose shard was sealed before them, and which were
    sent again to its children; ``hold_ms`` is the time during which delivered records waited for the outcome
    of a reshard."""

    records_put: int = 0
    records_acknowledged: int = 0
    records_failed: int = 0
    aggregates_sent: int = 0
    bytes_sent: int = 0
    void_resent: int = 0
    barriers: int = 0
    hold_ms: int = 0
    client_failures: int = 0
    fenced: int = 0


def now_ms() -> int:
    return time.time_ns() // 1_000_000


class ProducerState:
    """See the module. Methods whose names begin with ``locked_`` expect the lock to be held."""

    def __init__(self, stream: StreamConfig, shard_map: ShardMap) -> None:
        self.limits = stream.producer
        self.lock = threading.Lock()
        self.room = threading.Condition(self.lock)  # callers wait for room in the buffer
        self.work = threading.Condition(self.lock)  # the sender waits for something to send
        self.reported = threading.Condition(self.lock)  # the settler waits for deliveries
        self.settled = Settled(threading.Condition(self.lock), shard_map)  # receipts and flush wait
        self.packer = Packer(stream.aggregation)
        self.router = Router(shard_map)
        self.settling = Settling(shard_map, self._repack)
        self.stats = ProducerStats()
        self._acknowledged = metrics.RECORDS_ACKNOWLEDGED.labels(stream.name)
        self._failed = metrics.RECORDS_FAILED.labels(stream.name)
        self._age_seconds = metrics.BUFFERING_SECONDS.labels(stream.name)
        self.buffered_bytes = 0
        self.buffered_records = 0
        self.next_seq = 0
        self.closing = False
        self.failure: HeadraceError | None = None

    # -- callers -------------------------------------------------------------------------------------------------------

    def locked_take(self, size_bytes: int, records: int, timeout_s: float) -> None:
        """Wait for room for a record, or for ``records`` of them. Raises BufferFullError, ClosedError or the failure."""
        limits = self.limits
        deadline: float | None = None
        while True:
            self.locked_check()
            full = (
                self.buffered_bytes + size_bytes > limits.buffer_bytes_max
                or self.buffered_records + records > limits.buffer_records_max
            )
            if not full or self.buffered_records == 0:
                break
            deadline = time.monotonic() + timeout_s if deadline is None else deadline
            left = deadline - time.monotonic()
            if left <= 0:
                raise BufferFullError(
                    self.buffered_bytes, limits.buffer_bytes_max, self.buffered_records, limits.buffer_records_max
                )
            self.room.wait(left)
        self.buffered_bytes += size_bytes
        self.buffered_records += records

    def locked_check(self) -> None:
        if self.failure is not None:
            raise self.failure
        if self.closing:
            raise ClosedError("the producer is closed: records can no longer be put")

    def locked_enqueue(self, sealed: list[Aggregate]) -> None:
        """Sealed aggregates wait to be sent."""
        for aggregate in sealed:
            self.settling.enqueue(aggregate)
        self.work.notify()

    def locked_seal_all(self) -> None:
        self.locked_enqueue(self.packer.seal())

    # -- outcomes ------------------------------------------------------------------------------------------------------

    def locked_adopt(self, shard_map: ShardMap) -> None:
        """Before a new map reaches settling, what is packed for its former leaves has to be there: it is older than what
        the children will get."""
        if shard_map.leaves == self.settled.shard_map.leaves:
            self.settled.shard_map = shard_map
            return
        open_now = {leaf.id for leaf in shard_map.leaves if leaf.state is ShardState.OPEN}
        self.locked_enqueue(self.packer.seal([s for s in self.packer.open_shards() if s not in open_now]))
        self.router.adopt(shard_map)
        self.settled.shard_map = shard_map

    def locked_acknowledge(self, parcels: list[tuple[Aggregate, int | None]]) -> None:
        now = now_ms()
        for aggregate, offset in parcels:
            self._release(aggregate)
            self.stats.records_acknowledged += aggregate.count
            self._acknowledged.inc(aggregate.count)
            self._age_seconds.observe(max(0, now - aggregate.created_ms) / 1000)
            aggregate.acknowledge(offset)
        if parcels:
            self.locked_wake()

    def locked_fail(self, parcels: list[Aggregate], error: HeadraceError) -> None:
        """These records are not acknowledged and never will be by this producer."""
        for aggregate in parcels:
            self._release(aggregate)
            self.stats.records_failed += aggregate.count
            self._failed.inc(aggregate.count)
            aggregate.fail(error)
        self.locked_wake()

    def locked_stop(self, error: HeadraceError) -> None:
        """Nothing more is acknowledged: every record that is not yet fails with ``error``, and so does every later put."""
        if self.failure is None:
            self.failure = error
        self.locked_enqueue(self.packer.seal())
        self.locked_fail(self.settling.drain(), error)
        for condition in (self.work, self.reported):
            condition.notify_all()

    def locked_wake(self) -> None:
        self.room.notify_all()
        self.settled.condition.notify_all()
        self.work.notify()

    @property
    def locked_idle(self) -> bool:
        """Whether everything put was acknowledged or failed."""
        return self.settling.idle and not self.packer.open_shards()

    def locked_lowest_seq(self) -> int | None:
        """The lowest sequence that is not settled yet."""
        lows = [seq for seq in (self.settling.lowest_seq(), self.packer.lowest_seq()) if seq is not None]
        return min(lows, default=None)

    def _release(self, aggregate: Aggregate) -> None:
        self.buffered_bytes -= aggregate.size_bytes + RECORD_OVERHEAD_BYTES * aggregate.count
        self.buffered_records -= aggregate.count

    def _repack(self, shard: str, records: Sequence[WaitingRecord]) -> list[Aggregate]:
        return list(self.packer.repack(shard, records, now_ms()))
