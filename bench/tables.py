"""Kafka → bronze and what it stands beside: a plain Spark job (one record a message, from_avro, append, none of our columns or
checks), and the ceiling, which appends the same rows, `_meta` included, from memory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from bench import ours as headrace
from bench import plain as one_a_message
from bench.figure import Arena, Figure
from bench.schema import ORDER, orders, write_project
from jobs.run import run_tables
from jobs.tables import table_path, version
from pipeline.config import Config, load_config

CHUNK = 100_000  # of records in Python at once
TABLE = "bronze.orders"
STATISTICS = "delta.dataSkippingStatsColumns"
PLAIN_TOPIC = "plain-tabled"
SMALL_MICRO_BATCHES = 5


@dataclass(frozen=True)
class Topics:
    """The same records twice: in a stream of ours, and one a message."""

    stream: str
    plain: str
    records: int

    def config(self, folder: Path) -> Config:
        """A configuration with a warehouse of its own."""
        return load_config(write_project(folder, self.stream, table=True))


def filled(arena: Arena) -> Topics:
    topics = Topics("tabled", PLAIN_TOPIC, arena.table_records)
    config = topics.config(arena.folder / "filling")
    for first in range(0, topics.records, CHUNK):
        arena.say(f"records {first:,} to {min(first + CHUNK, topics.records):,} of {topics.records:,}")
        rows = orders(min(CHUNK, topics.records - first), first)
        headrace.put(config, topics.stream, rows)
        one_a_message.put(config.connection, topics.plain, rows)
    return topics


def ours(spark: Any, config: Config) -> float:
    """Seconds of one available-now run of the bronze table, made anew."""
    started = time.perf_counter()
    run_tables(spark, config, [TABLE], "available-now")
    return time.perf_counter() - started


def plain(spark: Any, topics: Topics, folder: Path) -> float:
    """Seconds of one available-now run of the plain job."""
    from pyspark.sql import functions as f
    from pyspark.sql.avro.functions import from_avro

    bootstrap = topics.config(folder).connection.bootstrap
    started = time.perf_counter()
    raw = (
        spark.readStream.format("kafka")
        .option("kafka.bootstrap.servers", bootstrap)
        .option("subscribe", topics.plain)
        .option("startingOffsets", "earliest")
        .load()
    )
    decoded = raw.select(from_avro(f.expr("substring(value, 6)"), json.dumps(ORDER)).alias("v")).select("v.*")
    query = (
        decoded.writeStream.format("delta")
        .option("checkpointLocation", f"{folder}/checkpoint")
        .trigger(availableNow=True)
        .start(f"{folder}/table")
    )
    query.awaitTermination()
    return time.perf_counter() - started


def ceiling(spark: Any, config: Config, folder: Path) -> float:
    """Seconds that appending the rows of our table from memory to a table of the same properties takes."""
    from delta.tables import DeltaTable

    path = table_path(config, TABLE)
    rows = spark.read.format("delta").load(path).persist()
    properties = DeltaTable.forPath(spark, path).detail().select("properties").collect()[0][0]
    empty = DeltaTable.create(spark).location(str(folder)).addColumns(rows.schema)
    empty.property(STATISTICS, properties[STATISTICS]).execute()
    try:
        rows.count()
        started = time.perf_counter()
        rows.write.format("delta").mode("append").save(str(folder))
        return time.perf_counter() - started
    finally:
        rows.unpersist()


def check(spark: Any, topics: Topics, folder: Path) -> None:
    """Everybody has every record."""
    found = {
        path: spark.read.format("delta").load(str(path)).count()
        for path in (Path(table_path(topics.config(folder), TABLE)), folder / "plain" / "table", folder / "delta-rs")
        if path.exists()
    }
    assert set(found.values()) == {topics.records}, found


def costs(spark: Any, config: Config, stream: str) -> list[Figure]:
    """What a micro-batch costs at least, and a trigger that finds nothing: milliseconds."""
    from jobs.bronze import BronzeJob
    from jobs.mode import Mode

    spark.conf.set("spark.sql.streaming.noDataProgressEventInterval", "0")
    job = BronzeJob(spark, config, TABLE)
    query = job.start(Mode(0.0))
    try:
        small = []
        for row in orders(SMALL_MICRO_BATCHES):
            before = version(spark, table_path(config, TABLE))
            headrace.put(config, stream, [row], linger_ms=1)
            while version(spark, table_path(config, TABLE)) == before:
                assert query.isActive, query.exception()
                time.sleep(0.005)
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            progress = [one for one in query.recentProgress if one.durationMs.get("triggerExecution") is not None]
            empty = [one.durationMs["triggerExecution"] for one in progress if one.numInputRows == 0]
            small = [one.durationMs["triggerExecution"] for one in progress if one.numInputRows > 0]
            if len(empty) >= SMALL_MICRO_BATCHES:
                break
            time.sleep(0.2)
    finally:
        query.stop()
        job.close()
    return [
        Figure("spark", "a micro-batch of one record", median(small[1:]), "ms"),
        Figure("spark", "a trigger that finds nothing", median(empty), "ms"),
    ]


def restarts(config: Config, stream: str) -> list[Figure]:
    """Processes of their own: from the start to a row that waited being in the table; memory at its highest over a whole
    table."""
    headrace.put(config, stream, orders(1))
    waited, _ = _process(config)
    again = load_config(write_project(config.path.parent / "again", stream, table=True))
    _, peak = _process(again)
    return [
        Figure("spark", "restart: process start to the first commit", waited, "s"),
        Figure("spark", "memory of the driver, JVM and Python", peak / 2**20, "MiB"),
    ]


def _process(config: Config) -> tuple[float, int]:
    """Seconds until the table has one version more, and bytes of the process and its JVM at their highest (Linux)."""
    log = Path(table_path(config, TABLE)) / "_delta_log"
    before = len(list(log.glob("*.json")))
    command = [sys.executable, "-m", "jobs.run", TABLE, "--config", str(config.path), "--mode", "available-now"]
    started, waited, peaks = time.perf_counter(), 0.0, dict[int, int]()
    with subprocess.Popen(command, env=os.environ, stdout=subprocess.DEVNULL) as process:
        while process.poll() is None:
            if not waited and len(list(log.glob("*.json"))) > before:
                waited = time.perf_counter() - started
            for pid in (process.pid, *_children(process.pid)):
                peaks[pid] = max(peaks.get(pid, 0), _peak_bytes(pid))
            time.sleep(0.02)
        assert process.returncode == 0
    return waited, sum(peaks.values())


def _children(pid: int) -> list[int]:
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def _peak_bytes(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:")), 0)
