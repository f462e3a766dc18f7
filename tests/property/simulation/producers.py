"""Producer processes: the real ProducerState, Settling and Packer, driven in the order of calls of pipeline/produce/send.py
and settle.py by three interleaved threads, over a client that behaves as librdkafka with gapless idempotence does.

A source gives each named producer its records by position, so a process that starts after a crash puts the same again.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Generator

from pipeline.config import StreamConfig
from pipeline.errors import FencedError
from pipeline.model.shards import CLAIM, Place
from pipeline.model.stamp import encode_stamp
from pipeline.produce.aggregate import Aggregate
from pipeline.produce.stamping import Stamper
from pipeline.produce.state import ProducerState
from tests.property.simulation.resharders import finish_pending
from tests.property.simulation.world import HASHES, KEYS, Message, World

LINGER_STEPS = 12
IN_FLIGHT_MAX = 3
STREAM = StreamConfig.model_validate(
    {
        "name": "t",
        "schema": "t.avsc",
        "shards": 1,
        "aggregation": {"bytes_max": 64 * 1024, "records_max": 3, "linger_ms": LINGER_STEPS},
    }
)


def key_at(producer: str, position: int) -> int:
    """The source: the key of a producer's record at a position. Neighbours in the source are often of one key."""
    return (position // 2 * 5 + position % 3 + len(producer) * ord(producer[-1])) % KEYS


class Client:
    """One librdkafka client: per partition, what it sends lands in order, without gaps; when it fails, a prefix of what is
    under way may land later, and nobody hears of it."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._name = f"client {world.number()}"
        self._lanes: dict[tuple[str, Place], None] = {}
        self._landed: dict[Place, deque[tuple[Aggregate, int]]] = {}
        self._failed = False

    def send(self, parcel: Aggregate, place: Place, message: Message) -> None:
        lane = (self._name, place)
        self._lanes[lane] = None

        def land() -> None:
            offset = self._world.append(place, message)
            if not self._failed:
                self._landed.setdefault(place, deque()).append((parcel, offset))

        self._world.network.post(lane, land)

    def report(self) -> tuple[Aggregate, int | None] | None:
        """The next delivery report, of any partition."""
        world = self._world
        if not self._landed or (not world.quiet and world.rng.random() < world.plan.p_late):
            return None
        place = world.rng.choice(list(self._landed))
        landed = self._landed[place]
        parcel, offset = landed.popleft()
        if not landed:
            del self._landed[place]
        return parcel, None if world.chance(world.plan.p_no_offset) else offset

    def fail(self) -> None:
        self._failed = True
        self._landed.clear()
        for lane in self._lanes:
            self._world.network.cut(lane, self._world.now)


class ProducerProcess:
    """One start of a named producer."""

    def __init__(self, world: World, name: str) -> None:
        self._world = world
        self.name = name
        known = world.control.newest.claims.get(name)
        self.incarnation = (known.incarnation if known else 0) + 1
        world.control.append(
            {"type": CLAIM, "producer": name, "incarnation": self.incarnation, "token": f"{name}-{world.number()}"}
        )
        self._position = world.control.end
        self.state = ProducerState(STREAM, world.control.newest)
        self.state.next_seq = world.durable.get(name, -1) + 1
        self._last_put = self.state.next_seq - 1
        self._stamper = Stamper(name, self.incarnation)
        self._client = Client(world)
        self._broken = False
        self._to_send: deque[Aggregate] = deque()
        self._settler = self._settle_loop()
        self._asleep_until = 0
        self.over = False
        world.say(f"{name}#{self.incarnation} starts at {self.state.next_seq}")

    # -- the schedule --------------------------------------------------------------------------------------------------

    def step(self) -> None:
        world = self._world
        if world.quiet:
            self._asleep_until = 0
        if self.over or world.now < self._asleep_until:
            return
        if world.chance(world.plan.p_sleep):
            self._asleep_until = world.now + world.rng.choice((5, 30, 100, 300))
            world.say(f"{self.name}#{self.incarnation} sleeps until {self._asleep_until}")
            return
        if not self._broken and world.chance(world.plan.p_client_fails):
            self._break_client()
        thread = world.rng.random()
        if thread < 0.25:
            self._caller()
        elif thread < 0.55:
            self._sender()
        elif thread < 0.75:
            self._deliveries()
        else:
            next(self._settler, None)

    @property
    def done(self) -> bool:
        """Everything of its source is put and acknowledged."""
        with self.state.lock:
            return self.over or (self.state.next_seq >= self._world.plan.records and self.state.locked_idle)

    def crash(self) -> None:
        self._world.say(f"{self.name}#{self.incarnation} crashes")
        self._client.fail()
        self.over = True

    # -- the caller's thread (producer.py) -----------------------------------------------------------------------------

    def _caller(self) -> None:
        world, state = self._world, self.state
        if world.rng.random() < 0.2:
            self._store_position()
        for _ in range(world.rng.randint(1, 4)):
            if state.next_seq >= world.plan.records:
                break
            seq = state.next_seq
            key = key_at(self.name, seq)
            world.checker.put(self.name, key, seq)
            with state.lock:
                state.locked_check()
                hashed = HASHES[key]
                shard = state.router.route(hashed)
                _, _, sealed = state.packer.add(shard, seq, hashed, b"x", world.now)
                state.next_seq = seq + 1
                self._last_put = seq
                if sealed:
                    state.locked_enqueue(sealed)

    def _store_position(self) -> None:
        """``acknowledged_position``: after a crash, the next process goes on behind it."""
        with self.state.lock:
            lowest = self.state.locked_lowest_seq()
            position = self._last_put if lowest is None else min(lowest - 1, self._last_put)
        self._world.durable[self.name] = max(position, self._world.durable.get(self.name, -1))

    # -- the sender's thread (send.py) ---------------------------------------------------------------------------------

    def _sender(self) -> None:
        state = self.state
        if self._broken:
            with state.lock:
                state.settling.client_failed()
            self._broken = False
            self._client = Client(self._world)
            return
        if self._to_send:
            self._send(self._to_send.popleft())
            return
        with state.lock:
            self._to_send.extend(state.locked_take_parcels(self._world.now, IN_FLIGHT_MAX))

    def _send(self, parcel: Aggregate) -> None:
        stamp = self._stamper.stamp(parcel, self._world.now)
        records = tuple((seq - parcel.first_seq, hashed) for seq, hashed in zip(parcel.seqs, parcel.hash_keys, strict=True))
        place = self.state.settled.shard_map.shards[parcel.shard].place
        self._client.send(parcel, place, Message(encode_stamp(stamp), records))

    def _break_client(self) -> None:
        self._world.say(f"{self.name}#{self.incarnation} client fails")
        self._client.fail()
        self._to_send.clear()  # what was taken and not handed over is under way to settling: unknown, like the rest
        self._broken = True

    # -- the client's thread -------------------------------------------------------------------------------------------

    def _deliveries(self) -> None:
        report = self._client.report()
        if report is not None:
            with self.state.lock:
                self.state.settling.delivered(*report)

    # -- the settler's thread (settle.py) ------------------------------------------------------------------------------

    def _settle_loop(self) -> Generator[None, None, None]:
        world, state = self._world, self.state
        while True:
            with state.lock:
                needed, tick = state.locked_begin_round()
            begun = world.rules.begin_barrier(world)
            yield
            self._position = world.rules.barrier(world, self._position, begun)
            shard_map = world.control.map_at(self._position)
            yield
            claim = shard_map.claims.get(self.name)
            if claim is not None and claim.incarnation > self.incarnation:
                self._fence()
                return
            with state.lock:
                acknowledged = state.locked_end_round(shard_map, needed, tick)
            for parcel, _ in acknowledged:
                for seq in parcel.seqs:
                    world.checker.acknowledge(self.name, seq)
            yield
            if shard_map.pending and world.rng.random() < (0.5 if world.quiet else 0.03):
                yield from finish_pending(world, f"{self.name}#{self.incarnation} finishing {world.number()}")

    def _fence(self) -> None:
        self._world.say(f"{self.name}#{self.incarnation} is fenced")
        with self.state.lock:
            self.state.locked_stop(FencedError("fenced"))
        self._client.fail()
        self.over = True
