"""Headrace on the same records and the same broker."""

from __future__ import annotations

import time
from typing import Any

from pipeline import Config, Consumer, Producer


def put(config: Config, stream: str, rows: list[dict[str, Any]], **options: Any) -> tuple[float, float]:
    """Seconds until the last row was handed over, and until the last was acknowledged."""
    with Producer(stream, config=config, **options) as producer:
        put_one = producer.put
        started = time.perf_counter()
        for row in rows:
            put_one(row, row["customer"])
        handed_over = time.perf_counter() - started
        producer.flush(60)
        seconds = time.perf_counter() - started
        assert producer.stats.records_acknowledged == len(rows)
    return handed_over, seconds


def put_many(config: Config, stream: str, rows: Any, **options: Any) -> tuple[float, float]:
    """The same of ``put_many``; ``rows`` are dicts or a pyarrow table."""
    with Producer(stream, config=config, **options) as producer:
        started = time.perf_counter()
        producer.put_many(rows, key="customer")
        handed_over = time.perf_counter() - started
        producer.flush(60)
        seconds = time.perf_counter() - started
        assert producer.stats.records_acknowledged == len(rows)
    return handed_over, seconds


def put_raw(config: Config, stream: str, values: list[tuple[bytes, str]]) -> float:
    """Seconds until the last of (value, key) is acknowledged, of a stream of bytes."""
    with Producer(stream, config=config) as producer:
        put_one = producer.put
        started = time.perf_counter()
        for value, key in values:
            put_one(value, key)
        producer.flush(60)
        return time.perf_counter() - started


def read(config: Config, stream: str, count: int) -> float:
    """Seconds from the first to the last of ``count`` records of ``for record in consumer``."""
    started = 0.0
    seen = 0
    with Consumer(stream, group=f"bench-{time.time_ns()}", config=config) as consumer:
        for _ in consumer:
            started = started or time.perf_counter()
            seen += 1
            if seen == count:
                break
        return time.perf_counter() - started
