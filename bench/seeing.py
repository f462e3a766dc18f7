"""What metrics cost: put and the consumer with counting and a scraper beside them and without, and a scrape with 1,000 shards."""

from __future__ import annotations

import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

from prometheus_client import Counter, Gauge, Histogram

from bench import ours
from bench.figure import Arena, Figure, paired, percentile
from bench.schema import orders
from pipeline import metrics
from pipeline.observe.endpoint import serve

SHARDS = 1_000
SCRAPES = 50
SCRAPE_EVERY_S = 5.0  # as docker/prometheus/prometheus.yml does
_SCRAPER = "import sys, time, urllib.request as u\nwhile True:\n    u.urlopen(sys.argv[1]).read(); time.sleep(float(sys.argv[2]))"


def run(arena: Arena) -> list[Figure]:
    rows = orders(arena.records)
    rates: dict[str, list[float]] = {}
    for turn in range(arena.rounds + 1):  # the first warms up, and is not counted
        arena.say(f"with and without metrics, round {turn} of {arena.rounds}")
        ways = ("on", "off") if turn % 2 else ("off", "on")  # whoever is second meets a warmer broker
        for way in ways:
            stream = f"seen-{way}-{turn}"
            config = arena.project(stream)
            with _scraped(serve(config, "bench")) if way == "on" else _uncounted():
                _, put_s = ours.put(config, stream, rows)
                read_s = ours.read(config, stream, len(rows))
            if turn:
                rates.setdefault(f"put {way}", []).append(len(rows) / put_s)
                rates.setdefault(f"read {way}", []).append(len(rows) / read_s)
    put, put_without = paired(rates["put on"], rates["put off"])
    read, read_without = paired(rates["read on"], rates["read off"])
    without = "without metrics"
    return [
        Figure("seeing", "put with metrics, acknowledged", put, "records/s", put_without, without),
        Figure("seeing", "for record in consumer, with metrics", read, "records/s", read_without, without),
        *_scrape(arena),
    ]


@contextmanager
def _scraped(url: str | None) -> Iterator[None]:
    """A process of its own scrapes, as Prometheus would."""
    assert url is not None
    scraper = subprocess.Popen([sys.executable, "-c", _SCRAPER, url, str(SCRAPE_EVERY_S)], stderr=subprocess.DEVNULL)
    try:
        yield
    finally:
        scraper.terminate()
        scraper.wait(10)


@contextmanager
def _uncounted() -> Iterator[None]:
    """No counter moves, no histogram observes: what is left is the code that calls them."""

    def nothing(*_: Any, **__: Any) -> None:
        pass

    with patch.object(Counter, "inc", nothing), patch.object(Gauge, "set", nothing), patch.object(Histogram, "observe", nothing):
        yield


class _Wide:
    """A stream of many shards with a group that lags on each, as producer and exporter in one process tell it."""

    def __init__(self) -> None:
        for number in range(SHARDS):
            metrics.SHARD_RECORDS.labels("wide", f"s{number}").inc(number)
            metrics.SHARD_BYTES.labels("wide", f"s{number}").inc(number)

    def read_gauges(self) -> list[metrics.Sample]:
        found: list[metrics.Sample] = []
        for number in range(SHARDS):
            shard = ("wide", f"s{number}")
            found.append((metrics.SHARD_MESSAGES, shard, float(number)))
            found.append((metrics.SHARD_SHARE, shard, 1 / SHARDS))
            found.append((metrics.GROUP_LAG, ("wide", "group", shard[1]), float(number)))
        return found

    def forget(self) -> None:
        for number in range(SHARDS):
            metrics.forget_shard("wide", f"s{number}")


def _scrape(arena: Arena) -> list[Figure]:
    arena.say(f"scrapes with {SHARDS:,} shards")
    wide = _Wide()
    metrics.LIVE.watch(wide.read_gauges)
    url = serve(arena.project("wide"), "bench")
    assert url is not None
    times_ms = []
    try:
        for _ in range(SCRAPES):
            began = time.perf_counter()
            with urllib.request.urlopen(url) as answer:
                size = len(answer.read())
            times_ms.append((time.perf_counter() - began) * 1_000)
    finally:
        wide.forget()
    name = f"a scrape with {SHARDS:,} shards"
    return [
        *(Figure("seeing", f"{name}, p{p}", percentile(times_ms, p), "ms", 200.0, "the aim") for p in (50, 99)),
        Figure("seeing", f"{name}, size", size / 1024, "KiB"),
    ]
