"""The fake cluster, and time: a control log, partitions, and a network that lets
requests of one connection land in order and those of different connections race."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from typing import Any

from pipeline.model.keys import HASH_NAME, HASH_SPACE
from pipeline.model.shards import CREATED, Place, Shard, ShardMap, shard_event
from tests.property.simulation.checker import Checker
from tests.property.simulation.rules import Rules

TOPIC = "t"
KEYS = 8
HASHES = [HASH_SPACE * (2 * key + 1) // (2 * KEYS) for key in range(KEYS)]
BOUNDS = [HASH_SPACE * key // KEYS for key in range(KEYS + 1)]
KEY_OF = {hashed: key for key, hashed in enumerate(HASHES)}


@dataclass(frozen=True, slots=True)
class Plan:
    """What may happen in one schedule. Which faults are on differs from seed to seed: all at once would hide some."""

    steps: int
    shards: int
    records: int
    readers: int
    reshards: int
    resharders_at_once: int
    p_sleep: float
    p_client_fails: float
    p_process_crashes: float
    p_second_process: float
    p_resharder_dies: float
    p_resharder_sleeps: float
    p_abort: float
    p_reader_crashes: float
    p_reader_sleeps: float
    p_rebalance: float
    p_rewind: float
    p_no_offset: float
    p_late: float
    p_leader_freezes: float
    replicated: bool
    speeds: tuple[int, ...]  # of producers, network, resharders, the coordinator, readers

    @classmethod
    def from_seed(cls, rng: random.Random) -> Plan:
        def maybe(p: float) -> float:
            return p * rng.choice((0.0, 0.0, 1.0, 1.0, 3.0))

        return cls(
            steps=rng.randint(150, 600),
            shards=rng.randint(1, 3),
            records=rng.randint(5, 25),
            readers=rng.randint(1, 3),
            reshards=rng.randint(1, 6),
            resharders_at_once=rng.randint(1, 3),
            p_sleep=maybe(0.02),
            p_client_fails=maybe(0.015),
            p_process_crashes=maybe(0.003),
            p_second_process=maybe(0.002),
            p_resharder_dies=maybe(0.05),
            p_resharder_sleeps=maybe(0.05),
            p_abort=maybe(0.1),
            p_reader_crashes=maybe(0.005),
            p_reader_sleeps=maybe(0.005),
            p_rebalance=maybe(0.01),
            p_rewind=maybe(0.003),
            p_no_offset=maybe(0.1),
            p_late=maybe(0.2),
            p_leader_freezes=maybe(0.01),
            replicated=rng.random() < 0.5,
            speeds=(rng.choice((20, 40, 60)), rng.choice((10, 20, 40)), rng.choice((5, 15, 30)), 3, rng.choice((5, 15, 40))),
        )


@dataclass(frozen=True, slots=True)
class Message:
    """One Kafka message. ``stamp`` is the header's bytes, None for an END marker, which says (shard, reshard) instead."""

    stamp: bytes | None
    records: tuple[tuple[int, int], ...] = ()  # (sequence relative to the stamp's first, hash key)
    end: tuple[str, str] | None = None


@cache
def _created(shards: int) -> tuple[dict[str, Any], ShardMap]:
    """Ranges start where a key's share of the space starts, so that every cut that splits a shard is between keys."""
    event = {
        "type": CREATED,
        "shards": [
            shard_event(Shard(f"s{i}", low * HASH_SPACE // KEYS, high * HASH_SPACE // KEYS, TOPIC, i))
            for i, (low, high) in enumerate(_even(shards))
        ],
        "hash": HASH_NAME,
        "subject": "t-value",
        "ordering": "strict",
    }
    return event, ShardMap().apply(event, 0)


def _even(count: int) -> list[tuple[int, int]]:
    bounds = [KEYS * i // count for i in range(count + 1)]
    return list(pairwise(bounds))


class Control:
    """The control log. Replay is deterministic, so one map for each position serves all who take part."""

    def __init__(self, shards: int) -> None:
        event, first = _created(shards)
        self.events: list[dict[str, Any]] = [event]
        self._maps = [ShardMap(), first]
        self.deposed_end: int | None = None
        """Where a leader that was frozen and deposed believes the log to end."""

    @property
    def end(self) -> int:
        return len(self.events)

    def append(self, event: dict[str, Any]) -> None:
        self._maps.append(self._maps[-1].apply(event, len(self.events)))
        self.events.append(event)

    def map_at(self, position: int) -> ShardMap:
        return self._maps[position]

    @property
    def newest(self) -> ShardMap:
        return self._maps[-1]


class Network:
    """Requests under way. Those of one lane land in order; a lane that was cut keeps a prefix, which may land much later."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._lanes: dict[Hashable, deque[Callable[[], None]]] = {}
        self._not_before: dict[Hashable, int] = {}

    def post(self, lane: Hashable, land: Callable[[], None]) -> None:
        self._lanes.setdefault(lane, deque()).append(land)

    def cut(self, lane: Hashable, now: int) -> None:
        """Whoever sent these is gone: some prefix of them lands, sometime."""
        requests = self._lanes.get(lane)
        if not requests:
            return
        keep = self._rng.randint(0, len(requests))
        while len(requests) > keep:
            requests.pop()
        if requests:
            self._not_before[lane] = now + self._rng.choice((0, 10, 50, 200, 500))
        else:
            del self._lanes[lane]

    def step(self, now: int) -> bool:
        lanes = [lane for lane in self._lanes if self._not_before.get(lane, 0) <= now]
        if not lanes:
            return False
        lane = self._rng.choice(lanes)
        requests = self._lanes[lane]
        land = requests.popleft()
        if not requests:
            del self._lanes[lane]
            self._not_before.pop(lane, None)
        land()
        return True

    def hurry(self) -> None:
        self._not_before.clear()

    @property
    def idle(self) -> bool:
        return not self._lanes


class World:
    """Everything that actors share. ``quiet``: no new faults, so that what is under way comes to an end."""

    def __init__(self, rng: random.Random, plan: Plan, rules: Rules) -> None:
        self.rng = rng
        self.plan = plan
        self.rules = rules
        self.now = 0
        self.quiet = False
        self.control = Control(plan.shards)
        self.network = Network(rng)
        self.logs: dict[Place, list[Message]] = {(TOPIC, i): [] for i in range(plan.shards)}
        self.times: dict[Place, list[int]] = {place: [] for place in self.logs}
        self.checker = Checker()
        self.durable: dict[str, int] = {}
        self._numbers = 0
        self.story: list[str] = []
        self.tell = False

    def number(self) -> int:
        self._numbers += 1
        return self._numbers

    def chance(self, p: float) -> bool:
        return not self.quiet and p > 0 and self.rng.random() < p

    def append(self, place: Place, message: Message) -> int:
        log = self.logs[place]
        log.append(message)
        self.times[place].append(self.now)
        if self.tell:
            self.say(f"{place[1]}@{len(log) - 1}: {message.end or message.records}")
        return len(log) - 1

    def say(self, text: str) -> None:
        if self.tell:
            self.story.append(f"{self.now:4} {text}")

