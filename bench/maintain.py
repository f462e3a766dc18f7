"""A table of many small files before and after maintenance: what a typical query takes, files and bytes."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import median
from typing import Any

import yaml

from bench import ours
from bench.figure import Arena, Figure
from bench.schema import orders
from jobs import tables
from jobs.maintain import Maintained, maintain_table
from jobs.run import run_tables
from pipeline.config import Config, load_config

MICRO_BATCHES = 40
TABLE = "bronze.orders"


def run(arena: Arena) -> list[Figure]:
    """A query for one key, and one over all rows. Removed files are kept for no time, as after a week."""
    from jobs.session import spark_session

    config = _clustered(arena.project("maintained", table=True))
    rows = orders(arena.records)
    spark = spark_session("bench", log_file=arena.folder / "spark.log")
    try:
        step = max(1, len(rows) // MICRO_BATCHES)
        for start in range(0, len(rows), step):
            arena.say(f"small files: micro-batch {start // step + 1} of {-(-len(rows) // step)}")
            ours.put(config, "maintained", rows[start : start + step])
            run_tables(spark, config, [TABLE], "available-now")
        path = tables.table_path(config, TABLE)
        key = rows[0]["customer"]
        before, on_disk = _times(spark, path, key, arena.rounds), _disk(path)
        done, seconds = _maintained(spark, config, path)
        after, kept = _times(spark, path, key, arena.rounds), _disk(path)
    finally:
        spark.stop()
    name = "before maintenance"
    return [
        Figure("maintain", "rows of one key", after[0], "ms", before[0], name),
        Figure("maintain", "a sum over all rows", after[1], "ms", before[1], name),
        Figure("maintain", "data files of the table", done.files, "files", on_disk[0], name),
        Figure("maintain", "data files on the disk", kept[0], "files", on_disk[0], name),
        Figure("maintain", "bytes on the disk", kept[1], "bytes", on_disk[1], name),
        Figure("maintain", f"maintaining {len(rows):,} rows", seconds, "s"),
    ]


def _clustered(config: Config) -> Config:
    """The project's own bronze table, clustered by the column that is asked for."""
    data = yaml.safe_load(config.path.read_text("utf-8"))
    data["tables"][TABLE]["cluster_by"] = ["customer"]
    config.path.write_text(yaml.safe_dump(data), "utf-8")
    return load_config(config.path)


def _maintained(spark: Any, config: Config, path: str) -> tuple[Maintained, float]:
    spark.sql(f"ALTER TABLE delta.`{path}` SET TBLPROPERTIES ('delta.deletedFileRetentionDuration' = 'interval 0 hours')")
    started = time.perf_counter()
    done = maintain_table(spark, config, TABLE, datetime.now(UTC) + timedelta(seconds=1), timedelta(0))
    return done, time.perf_counter() - started


def _times(spark: Any, path: str, key: str, rounds: int) -> tuple[float, float]:
    """Milliseconds of the two queries, after one round to warm up."""
    one, every = [], []
    for turn in range(rounds + 1):
        for found, condition in ((one, f"customer = '{key}'"), (every, "true")):
            started = time.perf_counter()
            found_rows = spark.read.format("delta").load(path).where(condition)
            found_rows.selectExpr("count(*)", "sum(amount)", "max(order_id)").collect()
            if turn:
                found.append((time.perf_counter() - started) * 1_000)
    return median(one), median(every)


def _disk(path: str) -> tuple[int, int]:
    files = list(Path(path).rglob("*.parquet"))
    data = [file for file in files if "_delta_log" not in file.parts]
    return len(data), sum(file.stat().st_size for file in data)
