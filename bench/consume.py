"""The consumer by record, by chunk and by column, beside poll and AvroDeserializer and beside the peers on the same records as
plain messages; and how long after SIGKILL of a worker its shards are handled again."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from statistics import median
from typing import Any

from bench import ours, plain
from bench.figure import Arena, Figure
from bench.peer import PEERS_PYTHON
from bench.schema import orders
from pipeline import Config, Consumer

PLAIN = "confluent-kafka, Avro"
PEERS = ("aiokafka", "quixstreams", "faststream")
REDELIVERED = 20_000
COMMIT_INTERVAL_S = 1.0


def run(arena: Arena) -> list[Figure]:
    rows = orders(arena.records)
    config = arena.project("read")
    ours.put(config, "read", rows)
    plain.put(config.connection, "plain-read", rows)
    ways: dict[str, Callable[[Consumer], Any]] = {
        "for record in consumer": _by_record,
        "consumer.chunks()": _by_chunk,
        "consumer.arrow()": _by_column,
    }
    rates: dict[str, list[float]] = {}
    for turn in range(arena.rounds + 1):  # the first warms up, and is not counted
        arena.say(f"reading, round {turn} of {arena.rounds}")
        seconds = {name: _read(config, len(rows), way) for name, way in ways.items()}
        seconds[PLAIN] = plain.read(config.connection, "plain-read", len(rows))
        for peer in PEERS if PEERS_PYTHON.exists() and turn == 1 else ():
            seconds[peer] = _peer(peer, config, len(rows))
        for name, taken in seconds.items() if turn else ():
            rates.setdefault(name, []).append(len(rows) / taken)
    beside = median(rates[PLAIN])
    figures = [Figure("consume", name, median(rates[name]), "records/s", beside, PLAIN) for name in ways]
    by_record = median(rates["for record in consumer"])
    peers = [peer for peer in PEERS if peer in rates]
    figures += [Figure("consume", "for record in consumer", by_record, "records/s", rates[peer][0], peer) for peer in peers]
    arena.say("a worker is killed")
    return figures + _redelivery(arena)


def _read(config: Config, count: int, way: Callable[[Consumer], Any]) -> float:
    """Seconds from the first to the last of ``count`` records; ``way`` gives how many came, step by step."""
    with Consumer("read", group=f"bench-{time.time_ns()}", config=config) as consumer:
        steps = way(consumer)
        seen = next(steps)
        started = time.perf_counter()
        while seen < count:
            seen += next(steps)
        return time.perf_counter() - started


def _peer(peer: str, config: Config, count: int) -> float:
    command = [str(PEERS_PYTHON), "-m", "bench.peer_reading", peer, config.connection.bootstrap, "plain-read", str(count)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=600)
    return float(json.loads(done.stdout.splitlines()[-1])["seconds"])


def _by_record(consumer: Consumer) -> Any:
    for record in consumer:
        yield 1 if record.value["order_id"] and record.key else 0


def _by_chunk(consumer: Consumer) -> Any:
    for chunk in consumer.chunks():
        yield sum(1 for record in chunk if record.value["order_id"])


def _by_column(consumer: Consumer) -> Any:
    for batch in consumer.arrow():
        yield batch.num_rows


WORKER = """
import sys, time
from pipeline import Consumer, load_config
with Consumer("killed", group="g", config=load_config(sys.argv[1]), commit_interval_s=float(sys.argv[2])) as consumer:
    for record in consumer:
        sys.stdout.write(f"{record.value['order_id']} {record.partition}\\n")
        sys.stdout.flush()
        time.sleep(0.001)
"""


def _redelivery(arena: Arena) -> list[Figure]:
    config = arena.project("killed")
    ours.put(config, "killed", orders(REDELIVERED))
    victim, other = _worker(config), _worker(config)
    try:
        before = _lines(victim, 1_500)
        its = {partition for _, partition in before}
        _lines(other, 1)
        victim.send_signal(signal.SIGKILL)
        killed = time.perf_counter()
        rest, _ = victim.communicate(timeout=30)
        before += [tuple(line.split()) for line in rest.splitlines() if line.count(" ") == 1]
        handled = {order for order, _ in before}
        twice, waited_s = 0, 0.0
        for order, partition in _stream(other):
            if partition in its and not waited_s:
                waited_s = time.perf_counter() - killed
            twice += order in handled
            if waited_s and time.perf_counter() - killed > waited_s + 3:
                break
    finally:
        for worker in (victim, other):
            worker.kill()
            worker.wait()
    return [
        Figure("consume", "after SIGKILL: its shards are handled again after", waited_s, "s"),
        Figure("consume", f"after SIGKILL: handled twice (commits every {COMMIT_INTERVAL_S:g} s)", twice, "records"),
    ]


def _worker(config: Config) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", WORKER, str(config.path), str(COMMIT_INTERVAL_S)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def _stream(worker: subprocess.Popen[str]) -> Any:
    assert worker.stdout is not None
    for line in worker.stdout:
        yield tuple(line.split())


def _lines(worker: subprocess.Popen[str], count: int) -> list[Any]:
    lines = _stream(worker)
    return [next(lines) for _ in range(count)]
