"""Freshness: from `put` until a record is visible in Delta, at a steady rate through a continuous bronze.

    python -m bench --only freshness [--records 100000]        fewer records: a shorter run of each rate

A record carries when it was put; when it became visible is the time of the log file of the Delta version that added its data
file. What counts is put after half a minute at the same rate. The producer is a process of its own with the default settings,
its linger of 100 ms included.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from bench import ours
from bench.figure import Arena, Figure
from bench.schema import orders

RATES = (1_000, 20_000)  # records a second
AIM_S = {50: 1.5, 99: 4.0}
SECONDS_MIN, SECONDS_MAX = 5.0, 30.0
FIRST_RECORDS = 2_000
WARM_UP_S = 30.0  # at the rate that is measured: a driver runs for days, its JVM compiles in the first minute
TICK_S = 0.01
THROUGH_S = 300.0


def run(arena: Arena) -> list[Figure]:
    from jobs.session import spark_session

    seconds = max(SECONDS_MIN, min(SECONDS_MAX, arena.records / RATES[-1]))
    figures: list[Figure] = []
    spark = spark_session("bench", log_file=arena.folder / "spark.log")
    try:
        for rate in RATES:
            arena.say(f"freshness at {rate:,} records a second, for {seconds:g} s")
            percentiles, micro_batches = _measure(arena, spark, rate, seconds)
            name = f"freshness at {rate:,} records/s"
            figures += [Figure("freshness", f"{name}, p{p}", percentiles[p], "s", AIM_S[p], "the aim") for p in AIM_S]
            figures.append(Figure("freshness", f"{name}: a micro-batch every", seconds / max(1, micro_batches), "s"))
    finally:
        spark.stop()
    return figures


def _measure(arena: Arena, spark: Any, rate: int, seconds: float) -> tuple[dict[int, float], int]:
    """Percentiles in seconds over all records, and the number of micro-batches that brought them."""
    from jobs.run import run_tables

    stream = f"fresh{rate}"
    config = arena.project(stream, table=True)
    ours.put(config, stream, orders(FIRST_RECORDS))
    run_tables(spark, config, ["bronze.orders"], "available-now")
    stop, records, expected = threading.Event(), [FIRST_RECORDS], FIRST_RECORDS
    table = Path(str(config.warehouse)) / "bronze" / "orders"
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(
            run_tables, spark, config, ["bronze.orders"], "continuous", stop, lambda done: records.append(done.records)
        )
        try:
            for lasts_s in (WARM_UP_S, seconds):
                before, began_ms, count = len(records), time.time() * 1_000, round(rate * lasts_s)
                expected += count
                command = [sys.executable, "-m", "bench.freshness", str(config.path), stream, str(rate), str(count)]
                subprocess.run(command, check=True, timeout=lasts_s + THROUGH_S)
                _wait(running, lambda: records[-1] >= expected)  # noqa: B023 - called in this turn
        finally:
            stop.set()
        running.result(60)
    return _ages(spark, table, began_ms), len(records) - before


def _wait(running: Future[Any], condition: Any) -> None:
    deadline = time.monotonic() + THROUGH_S
    while not condition():
        if running.done():
            running.result()
        if time.monotonic() > deadline:
            raise RuntimeError(f"bronze has not all records {THROUGH_S:g} s after the last was acknowledged")
        time.sleep(0.05)


def _ages(spark: Any, table: Path, began_ms: float) -> dict[int, float]:
    from pyspark.sql import functions as F

    visible = spark.createDataFrame(list(_visible_ms(table).items()), "file string, visible_ms double")
    rows = spark.read.parquet(*(str(table / name) for name in _visible_ms(table)))
    rows = rows.where(F.col("placed_at") >= began_ms).select("placed_at", F.col("_metadata.file_name").alias("file"))
    age_s = (F.col("visible_ms") - F.col("placed_at")) / 1_000
    wanted = list(AIM_S)
    found = rows.join(F.broadcast(visible), "file").agg(F.percentile(age_s, [p / 100 for p in wanted])).collect()[0][0]
    return dict(zip(wanted, found, strict=True))


def _visible_ms(table: Path) -> dict[str, float]:
    """Data file → when the version that added it was there."""
    out: dict[str, float] = {}
    for log in sorted((table / "_delta_log").glob("*.json")):
        for line in log.read_text().splitlines():
            if added := json.loads(line).get("add"):
                out[added["path"]] = log.stat().st_mtime * 1_000
    return out


def produce(config_path: str, stream: str, rate: str, count: str) -> None:
    """Put records at a rate, each with the time at which it was put; ends when all are acknowledged."""
    from pipeline import Producer, load_config

    rows, began, put = orders(int(count)), time.perf_counter(), 0
    with Producer(stream, config=load_config(config_path)) as producer:
        while put < len(rows):
            due = min(len(rows), round((time.perf_counter() - began) * int(rate)))
            for row in rows[put:due]:
                producer.put(row | {"placed_at": round(time.time() * 1_000)}, row["customer"])
            put = due
            time.sleep(TICK_S)
        producer.flush(60)


if __name__ == "__main__":
    produce(*sys.argv[1:])
