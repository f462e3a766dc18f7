"""Incremental gold beside a full refresh of the same query, over silver tables of 1, 10 and 50 million rows.

The sizes up to ``--records`` run (the smallest always): `python -m bench --only gold --records 50000000` runs all three.
"""

from __future__ import annotations

import time
from pathlib import Path
from statistics import median
from typing import Any

import yaml

from bench.figure import Arena, Figure
from pipeline.config import Config, load_config

SIZES = (1_000_000, 10_000_000, 50_000_000)
CHANGED_ROWS = 1_000
ROWS_PER_HOUR = 500
QUERY = """
    SELECT shop, date_trunc('HOUR', at) AS hour, count(*) AS orders, sum(amount) AS total, max(amount) AS highest
    FROM silver.orders GROUP BY shop, date_trunc('HOUR', at)
"""


def run(arena: Arena) -> list[Figure]:
    from jobs.session import spark_session

    spark = spark_session("bench", log_file=arena.folder / "spark.log")
    try:
        return [_measure(arena, spark, size) for size in SIZES if size <= max(arena.records, SIZES[0])]
    finally:
        spark.stop()


def _measure(arena: Arena, spark: Any, size: int) -> Figure:
    from jobs.gold import GoldJob

    config = _project(arena.folder / str(size))
    _fill(spark, config, size)
    jobs = {mode: GoldJob(spark, config, f"gold.{mode}") for mode in ("refresh", "incremental")}
    seconds: dict[str, list[float]] = {mode: [] for mode in jobs}
    for turn in range(arena.rounds + 1):  # the first makes the tables
        arena.say(f"gold over {size:,} rows, round {turn} of {arena.rounds}")
        if turn:
            _change(spark, config, size, turn)
        for mode, job in jobs.items():
            started = time.perf_counter()
            job.refresh()
            if turn:
                seconds[mode].append(time.perf_counter() - started)
    name = f"gold after {CHANGED_ROWS:,} of {size:,} silver rows changed"
    return Figure("gold", name, median(seconds["incremental"]), "s", median(seconds["refresh"]), "full refresh")


def _project(folder: Path) -> Config:
    folder.mkdir()
    (folder / "q.sql").write_text(QUERY)
    source = {"from": "silver.orders", "sql": "q.sql"}
    content = {
        "warehouse": "lake",
        "streams": {"orders": {"schema": "order.avsc"}},
        "tables": {
            "bronze.orders": {"from": "orders"},
            "silver.orders": {"from": "bronze.orders", "merge": {"keys": ["id"]}},
            "gold.refresh": source,
            "gold.incremental": source | {"mode": "incremental", "keys": ["shop", "hour"]},
        },
    }
    (folder / "headrace.yml").write_text(yaml.safe_dump(content))
    return load_config(folder / "headrace.yml")


def _rows(ids: Any, turn: int) -> Any:
    """Orders in the order of their time, ROWS_PER_HOUR an hour, of 40 shops; silver's own columns beside them."""
    from pyspark.sql import functions as f

    return ids.select(
        "id",
        f.concat(f.lit("shop-"), f.pmod(f.xxhash64("id"), f.lit(40))).alias("shop"),
        f.timestamp_seconds(1_700_000_000 + f.col("id") * 3600 / ROWS_PER_HOUR).alias("at"),
        f.pmod(f.xxhash64(f.col("id"), f.lit(turn)), f.lit(1000)).cast("int").alias("amount"),
        # nullif: the columns may be null, as silver's may.
        f.expr("struct(nullif(string(id), '') AS key, nullif('p', '') AS producer, nullif(id, -1) AS seq)").alias("_meta"),
        f.lit(False).alias("_deleted"),
        f.lit(None).cast("struct<reason: string>").alias("_rejected"),
    )


def _fill(spark: Any, config: Config, size: int) -> None:
    from jobs import tables

    rows = _rows(spark.range(size), 0)
    table = config.table("silver.orders")
    made = tables.create(spark, config, table, table.sources[0], rows.schema, statistics=["id", "at"])
    rows.write.format("delta").mode("append").save(made.path)


def _change(spark: Any, config: Config, size: int, turn: int) -> None:
    """Nine of ten changes are among the newest hundredth of the rows, the others anywhere."""
    from delta.tables import DeltaTable
    from pyspark.sql import functions as f

    from jobs import tables

    step = max(1, size // 100 // CHANGED_ROWS)
    newest = spark.range(CHANGED_ROWS * 9 // 10).select((size - 1 - f.col("id") * step).alias("id"))
    others = spark.range(CHANGED_ROWS // 10).select(f.pmod(f.xxhash64(f.col("id"), f.lit(turn)), f.lit(size)).alias("id"))
    changed = _rows(newest.union(others).distinct(), turn)
    into = DeltaTable.forPath(spark, tables.table_path(config, "silver.orders")).alias("t")
    into.merge(changed.alias("s"), "t.id = s.id").whenMatchedUpdateAll().whenNotMatchedInsertAll().execute()
