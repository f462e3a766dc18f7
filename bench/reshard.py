"""Reshards under load: from call to COMMIT, who waits and for how long, and what two hundred of them leave behind."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from queue import SimpleQueue
from statistics import median

from bench.figure import Arena, Figure, percentile
from bench.schema import orders
from pipeline import Config, Consumer, Producer
from pipeline.model.keys import HASH_SPACE, hash_key
from pipeline.model.shards import ShardMap
from pipeline.reshard import Resharder
from pipeline.reshard.control_log import ControlLog

RATE_PER_S = 1_000
RESHARDS = 20
IN_A_ROW = 200
QUARTER = HASH_SPACE // 4  # the first of four shards: only its range is resharded


def run(arena: Arena) -> list[Figure]:
    return [*_under_load(arena), *_in_a_row(arena)]


@dataclass
class Waits:
    """(put at, acknowledged at) of records, by whether their range is the one that is resharded."""

    resharded: list[tuple[float, float]] = field(default_factory=list)
    others: list[tuple[float, float]] = field(default_factory=list)


def _under_load(arena: Arena) -> list[Figure]:
    stream = "reshards"
    config = arena.project(stream)
    waits, reshards = Waits(), []
    with Producer(stream, config=config, linger_ms=5) as producer, _load(producer, waits):
        time.sleep(2)
        with Resharder(config.connection, config.stream(stream)) as resharder:
            for number in range(RESHARDS):
                arena.say(f"reshard under load {number + 1} of {RESHARDS}")
                started = time.perf_counter()
                _reshard(resharder)
                reshards.append((started, time.perf_counter()))
                time.sleep(0.5)
    during = [(start - 0.01, end + 0.01) for start, end in reshards]

    def ms(records: list[tuple[float, float]], inside: bool) -> list[float]:
        return [
            (done - put) * 1000
            for put, done in records
            if any(put < end and done > start for start, end in during) is inside
        ]

    calls = [(end - start) * 1000 for start, end in reshards]
    quiet = ms(waits.resharded, False) + ms(waits.others, False)
    figures = [Figure("reshard", f"call to COMMIT, p{p}", percentile(calls, p), "ms") for p in (50, 99)]
    for who, records in (("of the resharded range", waits.resharded), ("of other ranges", waits.others)):
        for p in (50, 99):
            value = percentile(ms(records, True), p)
            beside = percentile(quiet, p)
            figures.append(Figure("reshard", f"put to receipt {who}, p{p}", value, "ms", beside, "no reshard under way"))
    return figures


class _load:
    """``RATE_PER_S`` records a second in the background, each one's acknowledgement noted by a waiter of its shard's range."""

    def __init__(self, producer: Producer, waits: Waits) -> None:
        self._producer = producer
        self._stop = threading.Event()
        self._queues: list[SimpleQueue] = [SimpleQueue() for _ in range(4)]
        self._threads = [threading.Thread(target=self._put)]
        for quarter, queue in enumerate(self._queues):
            noted = waits.others if quarter else waits.resharded
            self._threads.append(threading.Thread(target=self._note, args=(queue, noted)))

    def __enter__(self) -> None:
        for thread in self._threads:
            thread.start()

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(30)

    def _put(self) -> None:
        rows = orders(RATE_PER_S)
        quarters = [hash_key(row["customer"]) // QUARTER for row in rows]
        started, number = time.perf_counter(), 0
        while not self._stop.is_set():
            at = number % len(rows)
            now = time.perf_counter()
            self._queues[quarters[at]].put((now, self._producer.put(rows[at], rows[at]["customer"])))
            number += 1
            ahead = started + number / RATE_PER_S - now
            if ahead > 0:
                time.sleep(ahead)
        for queue in self._queues:
            queue.put(None)

    def _note(self, queue: SimpleQueue, noted: list[tuple[float, float]]) -> None:
        while (item := queue.get()) is not None:
            put_at, receipt = item
            receipt.result(30)
            noted.append((put_at, time.perf_counter()))


def _reshard(resharder: Resharder) -> None:
    """Split the first quarter's shard, or merge its two halves again."""
    first, second = resharder.map.leaves[:2]
    if first.high == QUARTER:
        resharder.split(first.id)
    else:
        resharder.merge(first.id, second.id)


def _in_a_row(arena: Arena) -> list[Figure]:
    stream = "many-reshards"
    config = arena.project(stream)
    with Producer(stream, config=config) as producer:
        producer.put(orders(1)[0], "customer").result(10)
    _consume_one(config, stream)
    before, times = _start_up(config, stream), []
    with Resharder(config.connection, config.stream(stream)) as resharder:
        route_before = _route_ns(resharder.map)
        for number in range(IN_A_ROW):
            if number % 20 == 0:
                arena.say(f"reshard in a row {number} of {IN_A_ROW}")
            started = time.perf_counter()
            _reshard(resharder)
            times.append((time.perf_counter() - started) * 1000)
        route_after = _route_ns(resharder.map)
    after = _start_up(config, stream)
    figures = [
        Figure("reshard", "the last 20 of 200 reshards, median", median(times[-20:]), "ms", median(times[:20]), "the first 20"),
        Figure("reshard", "route a hash key after 200 reshards", route_after, "ns", route_before, "before"),
    ]
    figures += [Figure("reshard", f"{what} after 200 reshards", after[what], "ms", before[what], "before") for what in after]
    return figures


def _start_up(config: Config, stream: str) -> dict[str, float]:
    def start(open_it: Callable[[], object]) -> float:
        def once() -> float:
            started = time.perf_counter()
            opened = open_it()
            seconds = time.perf_counter() - started
            opened.close()  # type: ignore[attr-defined]
            return seconds * 1000

        return median(once() for _ in range(5))

    return {
        "start a producer": start(lambda: Producer(stream, config=config)),
        "start a consumer": start(lambda: Consumer(stream, group="bench", config=config)),
        "replay the control log": start(lambda: ControlLog(config.connection, config.stream(stream))),
    }


def _consume_one(config: Config, stream: str) -> None:
    with Consumer(stream, group="bench", config=config) as consumer:
        while not consumer.read(5):
            pass


def _route_ns(shard_map: ShardMap) -> float:
    chosen = random.Random(1)
    hashes = [chosen.randrange(HASH_SPACE) for _ in range(50_000)]
    route = shard_map.route
    started = time.perf_counter()
    for hashed in hashes:
        route(hashed)
    return (time.perf_counter() - started) / len(hashes) * 1e9
