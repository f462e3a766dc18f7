"""put beside the peers; processor time a record; how long a receipt takes at a steady rate; and what a lone record costs."""

from __future__ import annotations

import json
import subprocess
import threading
import time
from collections.abc import Callable
from queue import SimpleQueue
from statistics import median
from typing import Any

from confluent_kafka import Producer as PlainProducer

from bench import ours, plain
from bench.figure import Arena, Figure, percentile
from bench.peer import PEERS_PYTHON
from bench.schema import orders
from bench.traffic import log_bytes
from pipeline import Config, Producer
from pipeline.kafka.topics import Topics

PEERS = ("aiokafka", "quixstreams")
RATES = (1_000, 50_000)  # records a second
STEADY_S = 4.0
LONE = 1_000
SAMPLE_EVERY = 10


def run(arena: Arena) -> list[Figure]:
    return [*_beside_peers(arena), *_latencies(arena), *_alone(arena)]


def _beside_peers(arena: Arena) -> list[Figure]:
    rows = orders(arena.records)
    rates: dict[str, list[float]] = {}
    processor: dict[str, list[float]] = {}
    peers = PEERS if PEERS_PYTHON.exists() else ()
    if not peers:
        arena.say("no .venv-peers: aiokafka and Quix Streams are left out (make bench makes it)")
    for turn in range(arena.rounds + 1):
        arena.say(f"put beside peers, round {turn} of {arena.rounds}")
        stream = f"peered{turn}"
        config = arena.project(stream)
        begun = time.process_time()
        _, seconds = ours.put(config, stream, rows)
        spent = {"ours": (seconds, time.process_time() - begun)}
        begun = time.process_time()
        _, seconds = plain.put(config.connection, f"plainpeer{turn}", rows)
        spent["confluent-kafka"] = seconds, time.process_time() - begun
        for peer in peers:
            spent[peer] = _peer(peer, config, f"{peer}{turn}", len(rows))
        for name, (seconds, processor_s) in spent.items() if turn else ():
            rates.setdefault(name, []).append(len(rows) / seconds)
            processor.setdefault(name, []).append(processor_s / len(rows) * 1e6)
    figures = [
        Figure("produce", "put, until all are acknowledged", median(rates["ours"]), "records/s", median(rates[peer]), peer)
        for peer in peers
    ]
    cost, beside = median(processor["ours"]), median(processor["confluent-kafka"])
    return [*figures, Figure("produce", "put, processor time of the client", cost, "us/record", beside, "confluent-kafka, Avro")]


def _peer(peer: str, config: Config, topic: str, count: int) -> tuple[float, float]:
    Topics(config.connection).create(topic, plain.SHARDS, {})
    command = [str(PEERS_PYTHON), "-m", "bench.peer", peer, config.connection.bootstrap, topic, str(count)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=600)
    told = json.loads(done.stdout.splitlines()[-1])
    return float(told["seconds"]), float(told["processor_s"])


def _latencies(arena: Arena) -> list[Figure]:
    figures: list[Figure] = []
    for rate in RATES:
        arena.say(f"receipts at {rate:,} records a second")
        rows = orders(int(rate * STEADY_S))
        stream = f"steady{rate}"
        config = arena.project(stream)
        mine, theirs = _our_receipts(config, stream, rows, rate), _plain_receipts(config, f"plain{stream}", rows, rate)
        for p in (50, 99):
            name = f"put to receipt at {rate:,}/s, p{p} (linger 100 ms)"
            beside = percentile(theirs, p) * 1000
            figures.append(Figure("produce", name, percentile(mine, p) * 1000, "ms", beside, "confluent-kafka, Avro"))
    return figures


def _alone(arena: Arena) -> list[Figure]:
    """Records that have a message each: one is acknowledged before the next is put, without a linger. Beside those of a stream
    that packs none, and beside a producer that promises nothing."""
    arena.say("lone records")
    rows = orders(LONE)
    connection = arena.project("lone").connection
    plainly, serialize, context = plain.client(connection, "plain-lone", {"linger.ms": 0})

    def one(row: dict[str, Any]) -> None:
        _put_plain(plainly, "plain-lone", row["customer"], serialize(row, context), None)
        plainly.flush(60)

    mine, unpacked = _lone_receipts(arena, "lone", None), _lone_receipts(arena, "lone-unpacked", "none")
    theirs = [_timed(lambda row=row: one(row)) for row in rows]
    times = [percentile(found, 50) * 1000 for found in (mine, unpacked, theirs)]
    sizes = [log_bytes(topic) / LONE for topic in ("lone", "lone-unpacked", "plain-lone")]
    return [
        Figure("produce", f"a lone record, {what}", ours, unit, beside, name)
        for what, unit, (ours, *others) in (("until acknowledged, p50", "ms", times), ("bytes in the log", "bytes", sizes))
        for name, beside in zip(("aggregation: none", "confluent-kafka, Avro"), others, strict=True)
    ]


def _lone_receipts(arena: Arena, stream: str, aggregation: str | None) -> list[float]:
    config = arena.project(stream, aggregation=aggregation)
    linger = {"linger_ms": 0} if aggregation is None else {}  # a stream that packs nothing has none
    with Producer(stream, config=config, **linger) as producer:
        return [_timed(lambda row=row: producer.put(row, row["customer"]).result(60)) for row in orders(LONE)]


def _timed(act: Callable[[], object]) -> float:
    began = time.perf_counter()
    act()
    return time.perf_counter() - began


def _our_receipts(config: Config, stream: str, rows: list[dict[str, Any]], rate: int) -> list[float]:
    waiting: SimpleQueue[tuple[float, Any] | None] = SimpleQueue()
    latencies: list[float] = []

    def watch() -> None:
        while (one := waiting.get()) is not None:
            one[1].result(60)
            latencies.append(time.perf_counter() - one[0])

    watcher = threading.Thread(target=watch)
    watcher.start()
    with Producer(stream, config=config) as producer:
        for index, row in enumerate(_paced(rows, rate)):
            put_at = time.perf_counter()
            receipt = producer.put(row, row["customer"])
            if index % SAMPLE_EVERY == 0:
                waiting.put((put_at, receipt))
        producer.flush(60)
        waiting.put(None)
        watcher.join()
    return latencies


def _plain_receipts(config: Config, topic: str, rows: list[dict[str, Any]], rate: int) -> list[float]:
    latencies: list[float] = []
    producer, serialize, context = plain.client(config.connection, topic)
    for index, row in enumerate(_paced(rows, rate)):
        _put_plain(producer, topic, row["customer"], serialize(row, context), latencies if index % SAMPLE_EVERY == 0 else None)
    producer.flush(60)
    return latencies


def _put_plain(producer: PlainProducer, topic: str, key: str, value: bytes, latencies: list[float] | None) -> None:
    put_at = time.perf_counter()

    def delivered(error: Any, _: Any) -> None:
        assert error is None, error
        if latencies is not None:
            latencies.append(time.perf_counter() - put_at)

    producer.produce(topic, key=key, value=value, on_delivery=delivered)
    producer.poll(0)


def _paced(rows: list[dict[str, Any]], rate: int) -> Any:
    """The rows at a steady rate: a hundredth of a second's worth at a time."""
    step = max(1, rate // 100)
    started = time.perf_counter()
    for index, row in enumerate(rows):
        if index % step == 0:
            time.sleep(max(0.0, started + index / rate - time.perf_counter()))
        yield row
