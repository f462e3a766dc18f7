"""What a producer's threads share, under one lock: the open aggregates, what is under way, the bound on memory.

Three threads use it: the callers' (put, flush), the sender's (send.py) and the settler's (settle.py). Nothing here waits
for the network.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pipeline import metrics
from pipeline.config import StreamConfig
from pipeline.errors import BufferFullError, ClosedError, HeadraceError
from pipeline.model.keys import hash_key, salted_key
from pipeline.model.settling import Settling
from pipeline.model.shards import ShardMap, ShardState
from pipeline.produce.aggregate import Aggregate, WaitingRecord
from pipeline.produce.limit import ShardLimits
from pipeline.produce.pack import Lane, Packer
from pipeline.produce.receipt import Settled
from pipeline.produce.room import Room
from pipeline.produce.route import Router

# What a buffered record takes besides its bytes: list slots, numbers and object headers (measured).
RECORD_OVERHEAD_BYTES = 160
KEYS_MAX = 100_000  # partition keys whose lane is known


@dataclass(slots=True)
class ProducerStats:
    """Counters since the producer started. ``void_resent`` are records whose shard was sealed before them, and which were
    sent again to its children; ``hold_ms`` is the time during which delivered records waited for the outcome
    of a reshard; ``limited_ms`` that during which a shard's rate limit held aggregates back, summed over shards."""

    records_put: int = 0  # filled in by Producer.stats
    records_acknowledged: int = 0
    records_failed: int = 0
    records_expired: int = 0
    aggregates_sent: int = 0
    bytes_sent: int = 0
    void_resent: int = 0
    barriers: int = 0
    hold_ms: int = 0
    limited_ms: int = 0
    client_failures: int = 0
    fenced: int = 0


def now_ms() -> int:
    return time.time_ns() // 1_000_000


class ProducerState(Room):
    """See the module. Methods whose names begin with ``locked_`` expect the lock to be held.

    The numbers that ``put`` moves for each record are its base's: where they lie, compiled code finds them.
    """

    def __init__(self, stream: StreamConfig, shard_map: ShardMap) -> None:
        self.limits = stream.producer
        self.lock = threading.Lock()
        self.room = threading.Condition(self.lock)  # callers wait for room in the buffer
        self.work = threading.Condition(self.lock)  # the sender waits for something to send
        self.reported = threading.Condition(self.lock)  # the settler waits for deliveries
        # receipts and flush wait on the first; the second ends the settler's pause
        self.settled = Settled(threading.Condition(self.lock), threading.Condition(self.lock), shard_map)
        self.rates = ShardLimits(self.limits.shard_bytes_per_s, self.limits.shard_records_per_s)
        self.put_aside = threading.Condition(self.lock)
        self.aside: list[Aggregate] = []  # expired, on their way to the dead letters
        self.packer = Packer(stream.aggregation, self.settled)
        self.router = Router(shard_map)
        self.settling = Settling(shard_map, self._repack)
        self.stats = ProducerStats()
        self._acknowledged = metrics.RECORDS_ACKNOWLEDGED.labels(stream.name)
        self._taken = metrics.RECORDS_TAKEN.labels(stream.name)
        self._expired = metrics.RECORDS_EXPIRED.labels(stream.name)
        self._failed = metrics.RECORDS_FAILED.labels(stream.name)
        self._by_shard: dict[str, tuple[Any, Any]] = {}  # held label children of open shards
        self._stream = stream.name
        self._age_seconds = metrics.BUFFERING_SECONDS.labels(stream.name)
        self.lanes: dict[str, Lane] = {}  # by partition key; empty while nothing can be taken
        self.free_bytes = self.limits.buffer_bytes_max
        self.next_seq = 0
        self.full_seq = self.limits.buffer_records_max
        self.sender_wakes_ms = 0  # when the sender looks again by itself
        self.closing = False
        self.failure: HeadraceError | None = None
        metrics.LIVE.watch(self.read_gauges)

    def read_gauges(self) -> list[metrics.Sample]:
        """For a scrape; read without the lock."""
        labels = (self._stream,)
        return [(metrics.BUFFERED_RECORDS, labels, self.buffered_records), (metrics.BUFFERED_BYTES, labels, self.buffered_bytes)]

    def locked_begin_at(self, seq: int) -> None:
        """The next record gets this sequence."""
        self.full_seq += seq - self.next_seq
        self.next_seq = seq

    @property
    def buffered_bytes(self) -> int:
        return self.limits.buffer_bytes_max - self.free_bytes

    @property
    def buffered_records(self) -> int:
        return self.limits.buffer_records_max - (self.full_seq - self.next_seq)

    # -- callers -------------------------------------------------------------------------------------------------------

    def locked_wait_for_room(self, size_bytes: int, records: int, timeout_s: float) -> None:
        """Wait for room for that many. Raises BufferFullError, ClosedError or the failure."""
        deadline: float | None = None
        while True:
            self.locked_check()
            if (size_bytes <= self.free_bytes and self.next_seq + records <= self.full_seq) or self.buffered_records == 0:
                return
            deadline = time.monotonic() + timeout_s if deadline is None else deadline
            left = deadline - time.monotonic()
            if left <= 0:
                raise self.buffer_full()
            self.settled.locked_wait(left, self.room)

    def buffer_full(self) -> BufferFullError:
        limits = self.limits
        return BufferFullError(self.buffered_bytes, limits.buffer_bytes_max, self.buffered_records, limits.buffer_records_max)

    def locked_put(self, key: str, hashed: int | None, body: bytes, seq: int, salt: int = 0) -> tuple[Aggregate, int]:
        """Take a record for which there is room; ``hashed`` is a hash key given by its caller, ``seq`` not below
        ``next_seq``, ``salt`` that of ``body``."""
        shard = self.router.route(hash_key(salted_key(key, salt)) if hashed is None else hashed)
        aggregate, index, sealed = self.packer.add(shard, seq, hashed, body, now_ms())
        self.full_seq += seq - self.next_seq
        self.next_seq = seq + 1
        self.free_bytes -= len(body) + RECORD_OVERHEAD_BYTES
        if sealed:
            self.locked_enqueue(sealed)
        elif index == 0 and self.sender_wakes_ms > aggregate.created_ms + self.packer.linger_ms:
            self.work.notify()
        return aggregate, index

    def locked_put_claim(self, hashed: int, stub: bytes, seq: int, claim: bytes) -> tuple[Aggregate, int]:
        """Take a record that lies in a claim store: alone, behind what is packed for its shard. ``stub`` is an entry of its key,
        for routing."""
        aggregate = Aggregate(self.router.route(hashed), now_ms(), self.settled)
        aggregate.claim = claim
        index = aggregate.append(seq, hashed, stub)
        self.locked_put_aggregates([aggregate], seq + 1, len(stub) + RECORD_OVERHEAD_BYTES, 1)
        return aggregate, index

    def locked_put_aggregates(self, aggregates: list[Aggregate], next_seq: int, size_bytes: int, records: int) -> None:
        """Take whole aggregates for which there is room: behind what is packed for their shards."""
        for aggregate in aggregates:
            aggregate.settled = self.settled
        self.locked_enqueue(self.packer.seal({aggregate.shard for aggregate in aggregates}))
        self.locked_enqueue(aggregates)
        self.full_seq += next_seq - self.next_seq - records
        self.next_seq = next_seq
        self.free_bytes -= size_bytes

    def locked_remember(self, key: str) -> None:
        """The next records of this key go straight into its shard's open aggregate."""
        if key.__class__ is not str:
            return  # compiled code looks keys up where nobody's __eq__ may run
        if len(self.lanes) >= KEYS_MAX:
            self.lanes.clear()
        self.lanes[key] = self.packer.lane(self.router.route(hash_key(key)))

    def locked_check(self) -> None:
        if self.failure is not None:
            raise self.failure
        if self.closing:
            raise ClosedError("the producer is closed: records can no longer be put")

    def locked_close(self) -> None:
        """No record is taken any more."""
        self.closing = True
        self.lanes.clear()

    def locked_enqueue(self, sealed: list[Aggregate]) -> None:
        """Sealed aggregates wait to be sent."""
        for aggregate in sealed:
            self.settling.enqueue(aggregate)
            self._taken.inc(aggregate.count)
        if sealed:
            self.work.notify()

    def locked_seal_all(self) -> None:
        self.locked_enqueue(self.packer.seal())

    # -- outcomes ------------------------------------------------------------------------------------------------------

    def locked_adopt(self, shard_map: ShardMap) -> None:
        """Before a new map reaches settling, what is packed for its former leaves has to be there: it is older than what
        the children will get."""
        if shard_map.salts != self.settled.shard_map.salts:
            self.lanes.clear()
        if shard_map.leaves == self.settled.shard_map.leaves:
            self.settled.shard_map = shard_map
            return
        open_now = {leaf.id for leaf in shard_map.leaves if leaf.state is ShardState.OPEN}
        self.locked_enqueue(self.packer.seal([s for s in self.packer.open_shards() if s not in open_now]))
        self.router.adopt(shard_map)
        leaves = {leaf.id for leaf in shard_map.leaves}
        self.packer.keep(leaves)
        self.rates.keep(leaves)
        self.lanes.clear()
        self.settled.shard_map = shard_map
        for shard in [one for one in self._by_shard if shard_map.shards[one].state is ShardState.SEALED]:
            del self._by_shard[shard]
            metrics.forget_shard(self._stream, shard)

    # -- rounds of the two threads, which the simulation of tests/property drives too ------------------------------------

    def locked_take_parcels(self, now: int, in_flight_max: int) -> list[Aggregate]:
        """What the sender hands over now, in order: seals what has lingered (all of it when closing)."""
        self.locked_enqueue(self.packer.seal() if self.closing else self.packer.due(now))
        return self.settling.take_sendable(in_flight_max, lambda aggregate: self.rates.allow(aggregate, now))

    def locked_begin_round(self) -> tuple[bool, int]:
        """(whether a delivered aggregate waits for a barrier, the tick of a barrier that begins now)."""
        return self.settling.waits_for_barrier, self.settling.begin_barrier()

    def locked_end_round(self, shard_map: ShardMap, settles: bool, tick: int) -> list[tuple[Aggregate, int | None]]:
        """The barrier that began at ``tick`` showed ``shard_map``; where there was none (``settles`` is false) the map may stop
        sending or free what waits, and acknowledges nothing. Returns what was acknowledged."""
        self.locked_adopt(shard_map)
        acknowledged = self.settling.settle(shard_map, tick) if settles else []
        if not settles:
            self.settling.view(shard_map)
        self.locked_acknowledge(acknowledged)
        return acknowledged

    def locked_acknowledge(self, parcels: list[tuple[Aggregate, int | None]]) -> None:
        now = now_ms()
        for aggregate, offset in parcels:
            self._release(aggregate)
            self.stats.records_acknowledged += aggregate.count
            self._acknowledged.inc(aggregate.count)
            # The exemplar leads from a slow bucket to the very message.
            exemplar = {"shard": aggregate.shard, "offset": str(offset)}
            self._age_seconds.observe(max(0, now - aggregate.created_ms) / 1000, exemplar)
            self._count_shard(aggregate)
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

    def locked_count_expired(self, records: int) -> None:
        self.stats.records_expired += records
        self._expired.inc(records)

    def locked_stop(self, error: HeadraceError) -> None:
        """Nothing more is acknowledged: every record that is not yet fails with ``error``, and so does every later put."""
        if self.failure is None:
            self.failure = error
        self.lanes.clear()
        self.locked_enqueue(self.packer.seal())
        self.locked_fail(self.settling.drain() + self.aside, error)
        self.aside.clear()
        for condition in (self.work, self.reported, self.put_aside, self.settled.hurry):
            condition.notify_all()

    def locked_wake(self) -> None:
        self.room.notify_all()
        self.settled.locked_wake()
        self.locked_wake_sender()

    def locked_wake_sender(self) -> None:
        """If there is something for it: each time it wakes, it takes the interpreter from the callers."""
        if self.settling.has_ready or self.closing:
            self.work.notify()

    @property
    def locked_idle(self) -> bool:
        """Whether everything put was acknowledged or failed."""
        return self.settling.idle and not self.aside and not self.packer.open_shards()

    def locked_lowest_seq(self) -> int | None:
        """The lowest sequence that is not settled yet."""
        lows = [seq for seq in (self.settling.lowest_seq(), self.packer.lowest_seq()) if seq is not None]
        lows += [aggregate.first_seq for aggregate in self.aside]
        return min(lows, default=None)

    def _count_shard(self, aggregate: Aggregate) -> None:
        held = self._by_shard.get(aggregate.shard)
        if held is None:
            if self.settled.shard_map.shards[aggregate.shard].state is ShardState.SEALED:
                return  # acknowledged below its seal, and forgotten already
            labels = (self._stream, aggregate.shard)
            held = (metrics.SHARD_RECORDS.labels(*labels), metrics.SHARD_BYTES.labels(*labels))
            self._by_shard[aggregate.shard] = held
        held[0].inc(aggregate.count)
        held[1].inc(aggregate.size_bytes)

    def _release(self, aggregate: Aggregate) -> None:
        self.free_bytes += aggregate.size_bytes + RECORD_OVERHEAD_BYTES * aggregate.count
        self.full_seq += aggregate.count

    def _repack(self, shard: str, records: Sequence[WaitingRecord]) -> list[Aggregate]:
        return list(self.packer.repack(shard, records, now_ms()))
