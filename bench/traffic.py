"""What a million records cost the broker: bytes in its log, and the Produce requests that brought them; and bytes that are put
as they are beside plain ``produce``."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from statistics import median
from typing import Any
from unittest.mock import patch

from bench import ours, plain
from bench.figure import Arena, Figure
from bench.schema import ORDER, RAW, orders
from pipeline import Producer
from pipeline.config.load import home
from pipeline.kafka.settings import producer_settings
from pipeline.schema.encode import compile_encoder
from pipeline.schema.value_schema import parse_schema

MILLION = 1_000_000
STATISTICS_MS = 200
PLAIN = "confluent-kafka, Avro"


def run(arena: Arena) -> list[Figure]:
    return [*_traffic(arena), *_raw(arena)]


class Requests:
    """Counts a client's Produce requests by librdkafka's statistics."""

    def __init__(self) -> None:
        self.told = 0
        self.settings: dict[str, Any] = {"statistics.interval.ms": STATISTICS_MS, "stats_cb": self._take}
        self._reports = 0

    def _take(self, text: str) -> None:
        self.told = sum(broker["req"].get("Produce", 0) for broker in json.loads(text)["brokers"].values())
        self._reports += 1

    def wait_for_the_last(self, serve: Callable[[], object]) -> None:
        """Two reports from now on: the second was made after everything was acknowledged."""
        upto, deadline = self._reports + 2, time.monotonic() + 30
        while self._reports < upto and time.monotonic() < deadline:
            serve()


def _traffic(arena: Arena) -> list[Figure]:
    arena.say("bytes and requests")
    rows = orders(arena.records)
    config = arena.project("traffic")
    mine, theirs = Requests(), Requests()

    def counted(*arguments: Any) -> dict[str, Any]:
        return producer_settings(*arguments) | mine.settings

    with patch("pipeline.kafka.sender.producer_settings", counted), Producer("traffic", config=config) as producer:
        for row in rows:
            producer.put(row, row["customer"])
        producer.flush(60)
        mine.wait_for_the_last(lambda: time.sleep(0.05))
    plain.put(config.connection, "plain-traffic", rows, theirs.wait_for_the_last, theirs.settings)
    scale = MILLION / len(rows)
    return [
        Figure("traffic", f"{what} per million records", a * scale, unit, b * scale, PLAIN)
        for what, unit, a, b in (
            ("bytes in the broker's log", "bytes", log_bytes("traffic"), log_bytes("plain-traffic")),
            ("Produce requests", "requests", mine.told, theirs.told),
        )
    ]


def log_bytes(topic: str) -> int:
    """The size of a topic's segments on the disk of this run's broker."""
    return sum(file.stat().st_size for file in (home() / "data").glob(f"*/{topic}-[0-9]*/*.log"))


def _raw(arena: Arena) -> list[Figure]:
    encode = compile_encoder(parse_schema(ORDER))
    values = [(encode(row), row["customer"]) for row in orders(arena.records)]
    rates: dict[str, list[float]] = {}
    processor: dict[str, list[float]] = {}
    for turn in range(arena.rounds + 1):  # the first warms up, and is not counted
        arena.say(f"bytes, round {turn} of {arena.rounds}")
        config = arena.project(f"raw{turn}", schema=RAW)
        ways: dict[str, Callable[[], float]] = {
            "ours": lambda config=config, turn=turn: ours.put_raw(config, f"raw{turn}", values),
            "theirs": lambda config=config, turn=turn: plain.put_raw(config.connection, f"plain-raw{turn}", values),
        }
        for who, way in ways.items():
            begun = time.process_time()
            taken = way()
            if turn:
                rates.setdefault(who, []).append(len(values) / taken)
                processor.setdefault(who, []).append((time.process_time() - begun) / len(values) * 1e6)
    return [
        Figure(
            "traffic", f"put of bytes, {what}", median(found["ours"]), unit, median(found["theirs"]), "produce of the same bytes"
        )
        for what, unit, found in (
            ("until all are acknowledged", "records/s", rates),
            ("processor time", "us/record", processor),
        )
    ]
