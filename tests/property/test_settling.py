"""Settling under random deliveries, failures and reshards, with the real packer: what it may send, acknowledge and keep."""

from __future__ import annotations

import random
from collections import Counter, deque

from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.config import Aggregation
from pipeline.model.keys import HASH_SPACE
from pipeline.model.settling import Settling
from pipeline.model.shards import ABORT, COMMIT, Place, ShardMap, ShardState
from pipeline.produce.aggregate import Aggregate
from pipeline.produce.pack import Packer
from tests.property.test_shard_map import Writer

property_settings = settings(max_examples=200, deadline=None, database=None, print_blob=True)


class Driver:
    """One producer over a random control log. Checks, after every step, what has to hold at every moment."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.writer = Writer(seed, 0)
        self.packer = Packer(Aggregation(records_max=3, bytes_max=1024, linger_ms=0))
        self.known: ShardMap = self.writer.map
        self.settling = Settling(self.known, lambda shard, records: self.packer.repack(shard, records, 0))
        self.logs: dict[Place, list[Aggregate | str]] = {}
        self.under_way: dict[str, deque[Aggregate]] = {}
        self.put: list[tuple[int, int]] = []  # hash key by sequence
        self.acknowledged: dict[int, Aggregate] = {}
        self.last_sent: dict[str, int] = {}
        self.delivered_at: dict[int, int] = {}  # parcel -> tick of the test's own clock
        self.time = 0

    def step(self) -> None:
        self.time += 1
        actions = [self._put, self._put, self._send, self._send, self._deliver, self._deliver, self._settle, self._view]
        actions += [self._reshard, self._fail] if self.rng.random() < 0.3 else []
        self.rng.choice(actions)()
        self.check()

    def check(self) -> None:
        """Nothing is dropped: every record is in one lane, an orphan, or acknowledged."""
        lanes = self.settling._lanes.values()
        kept = Counter(seq for lane in lanes for sent in lane.sent for seq in sent.parcel.seqs)
        kept.update(seq for lane in lanes for parcel in lane.ready for seq in parcel.seqs)
        kept.update(record.seq for record in self.settling.orphans)
        kept.update(self.acknowledged.keys())
        assert kept == Counter(range(len(self.put)))
        lowest = min((seq for seq in range(len(self.put)) if seq not in self.acknowledged), default=None)
        assert self.settling.lowest_seq() == lowest
        assert self.settling.idle == (lowest is None)

    # -- steps ---------------------------------------------------------------------------------------------------------

    def _put(self) -> None:
        parcels: dict[str, Aggregate] = {}
        for _ in range(self.rng.randint(1, 5)):
            hashed = self.rng.randrange(HASH_SPACE)
            shard = self.known.route(hashed).id
            parcels.setdefault(shard, Aggregate(shard, 0)).append(len(self.put), hashed, b"x")
            self.put.append((len(self.put), hashed))
        for parcel in parcels.values():
            self.settling.enqueue(parcel)

    def _send(self) -> None:
        in_flight_max = self.rng.randint(1, 3)
        for parcel in self.settling.take_sendable(in_flight_max):
            shard = self.known.shards[parcel.shard]
            assert shard.state is ShardState.OPEN
            ancestors = self.known.ancestors(parcel.shard)
            assert all(self._settled_in(ancestor) for ancestor in ancestors), "a child took records before its parents"
            assert parcel.first_seq > self.last_sent.get(parcel.shard, -1), "a shard was fed out of sequence"
            assert all(shard.holds(hashed) for hashed in parcel.hash_keys)
            self.last_sent[parcel.shard] = parcel.last_seq
            self.under_way.setdefault(parcel.shard, deque()).append(parcel)
            assert len(self.under_way[parcel.shard]) <= in_flight_max + 3

    def _settled_in(self, shard: str) -> bool:
        lane = self.settling._lanes.get(shard)
        return lane is None or not (lane.sent or lane.ready)

    def _deliver(self) -> None:
        ways = [way for way in self.under_way.values() if way]
        if ways:
            parcel = self.rng.choice(ways).popleft()
            log = self.logs.setdefault(self.writer.map.shards[parcel.shard].place, [])
            log.append(parcel)
            self.delivered_at[id(parcel)] = self.time
            self.settling.delivered(parcel, None if self.rng.random() < 0.15 else len(log) - 1)

    def _fail(self) -> None:
        lost = sum(len(way) for way in self.under_way.values())
        for shard, way in self.under_way.items():
            if way:
                self.last_sent[shard] = way[0].first_seq - 1
        self.under_way.clear()
        assert self.settling.client_failed() == lost

    def _view(self) -> None:
        self.known = self.writer.map
        self.settling.view(self.known)

    def _settle(self) -> None:
        begun = self.time
        tick = self.settling.begin_barrier()
        for _ in range(self.rng.randint(0, 2)):  # deliveries while the barrier is under way
            self.time += 1
            self._deliver()
        self.known = self.writer.map
        for parcel, offset in self.settling.settle(self.known, tick):
            shard = self.known.shards[parcel.shard]
            assert self.delivered_at[id(parcel)] <= begun, "acknowledged by a barrier that began before the delivery"
            assert shard.state is not ShardState.SEALING
            assert shard.state is ShardState.OPEN or (offset is not None and shard.seal is not None and offset < shard.seal)
            parcel.acknowledge(offset)
            for seq in parcel.seqs:
                assert seq not in self.acknowledged
                self.acknowledged[seq] = parcel

    def _reshard(self) -> None:
        """PREPARE; or the END markers and COMMIT; or ABORT."""
        writer = self.writer
        if writer.map.pending and self.rng.random() < 0.7:
            reshard = next(iter(writer.map.pending.values()))
            if self.rng.random() < 0.3:
                writer._write({"type": ABORT, "reshard": reshard.id}, valid=True)
                return
            seals = {}
            for parent in reshard.parents:
                log = self.logs.setdefault(writer.map.shards[parent].place, [])
                log.append(f"END {parent}")
                seals[parent] = len(log) - 1
            writer._write({"type": COMMIT, "reshard": reshard.id, "seals": seals}, valid=True)
        else:
            event = writer.prepare()
            if event is not None and len(writer.map.shards) < 30:
                ends = {p: len(self.logs.get(writer.map.shards[p].place, [])) for p in event["parents"]}
                writer._write(event | {"scan_from": ends}, valid=True)

    def finish(self) -> None:
        """No more faults: everything gets acknowledged."""
        while self.writer.map.pending:
            self._reshard()
        self._fail()
        for _ in range(400):
            self._settle()
            self._send()
            while any(self.under_way.values()):
                self._deliver()
            self.check()
            if self.settling.idle:
                return
        raise AssertionError("it never gets idle")


@property_settings
@given(st.integers(0, 1 << 32), st.integers(1, 80))
def test_nothing_is_dropped_or_acknowledged_early_when_deliveries_and_reshards_mix(seed: int, steps: int) -> None:
    driver = Driver(seed)
    for _ in range(steps):
        driver.step()
    driver.finish()
    # What was acknowledged stands in its shard's log, below the seal that came later, under a hash key of the shard.
    for seq, parcel in driver.acknowledged.items():
        shard = driver.writer.map.shards[parcel.shard]
        log = driver.logs[shard.place]
        offset = next(at for at, entry in enumerate(log) if entry is parcel)
        assert parcel.offset in (None, offset)
        assert shard.seal is None or offset < shard.seal
        assert shard.holds(driver.put[seq][1])
        assert seq in parcel.seqs


@property_settings
@given(st.integers(0, 1 << 32), st.integers(1, 80))
def test_giving_up_hands_back_everything_that_is_not_acknowledged(seed: int, steps: int) -> None:
    driver = Driver(seed)
    for _ in range(steps):
        driver.step()
    drained = Counter(seq for parcel in driver.settling.drain() for seq in parcel.seqs)
    assert drained == Counter(seq for seq in range(len(driver.put)) if seq not in driver.acknowledged)
    assert driver.settling.idle
