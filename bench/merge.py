"""What a merge into silver costs as the table grows: 10,000 changed rows into ``--records`` rows, beside a tenth as many.

The keys that change are recent ones (as most are), recent ones with a few old ones among them, or any. No record goes through
Kafka: bronze is written by Spark. The table is clustered by its key first (OPTIMIZE), as maintenance does.
"""

from __future__ import annotations

import time
from statistics import median
from typing import Any

import yaml

from bench.figure import Arena, Figure
from bench.schema import ORDER
from pipeline.config import Config, load_config

CHANGES = 10_000
OLD_AMONG_RECENT = 20


def run(arena: Arena) -> list[Figure]:
    from jobs.session import spark_session

    spark = spark_session("bench", log_file=arena.folder / "spark.log")
    try:
        small, large = (_Table(spark, arena, count) for count in (arena.records // 10, arena.records))
        figures = []
        for name, keys in (("recent", "recent"), ("recent and 20 old", "mixed"), ("any", "any")):
            arena.say(f"merging {CHANGES:,} changes of {name} keys")
            low, high = small.merge_s(keys), large.merge_s(keys)
            title = f"merge {CHANGES:,} {name} keys into {large.rows:,}"
            figures.append(Figure("merge", title, high, "s", low, f"into {small.rows:,}"))
        pruned, whole = large.merge_s("mixed"), large.merge_s("mixed", prune=False)
        title = f"merge {CHANGES:,} recent and 20 old keys into {large.rows:,}"
        figures.append(Figure("merge", title, pruned, "s", whole, "without the keys' ranges"))
        return figures
    finally:
        spark.stop()


class _Table:
    """A silver table with ``rows`` rows, and its bronze table, which changes are appended to."""

    def __init__(self, spark: Any, arena: Arena, rows: int) -> None:
        from jobs import decode, tables
        from pipeline.model.shards import ShardMap

        arena.say(f"a silver table of {rows:,} rows")
        self.rows, self._spark, self._config = rows, spark, _config(arena, rows)
        self._changes, self._rounds = 0, arena.rounds
        self._schema = decode.empty(spark, ORDER, ShardMap()).schema
        bronze = self._config.table("bronze.orders")
        tables.create(spark, self._config, bronze, bronze.sources[0], self._schema)
        self._bronze = tables.table_path(self._config, "bronze.orders")
        self._append(spark.range(rows))
        self._run()
        from delta.tables import DeltaTable

        DeltaTable.forPath(spark, tables.table_path(self._config, "silver.orders")).optimize().executeCompaction()

    def merge_s(self, keys: str, *, prune: bool = True) -> float:
        """Seconds of one run of silver over 10,000 changes; the median of the rounds after one to warm up."""
        import jobs.silver

        times = []
        look = jobs.silver.look
        for _ in range(self._rounds + 1):
            self._append(self._keys(keys))
            if not prune:
                jobs.silver.look = lambda rows, prunable, *, cut: look(rows, [], cut=cut)
            try:
                times.append(self._run())
            finally:
                jobs.silver.look = look
        return median(times[1:])

    def _keys(self, kind: str) -> Any:
        from pyspark.sql import functions as f

        count, seed = min(CHANGES, self.rows), 7 + self._changes
        if kind == "any":
            return self._spark.range(count).select((f.rand(seed) * self.rows).cast("bigint").alias("id")).distinct()
        recent = self._spark.range(self.rows - count, self.rows)
        if kind == "recent":
            return recent
        old = self._spark.range(OLD_AMONG_RECENT).select((f.rand(seed) * self.rows).cast("bigint").alias("id"))
        return recent.union(old).distinct()

    def _append(self, ids: Any) -> None:
        """Bronze rows of these orders, each newer than all before."""
        from pyspark.sql import functions as f

        self._changes += 1
        order = f.struct(f.lit(self._changes).alias("generation"), f.col("id").alias("offset"), f.lit(0).alias("index"))
        known = {
            "order_id": f.format_string("order-%012d", "id"),
            "customer": f.format_string("customer-%06d", f.col("id") % 1000),
            "placed_at": f.lit(1_700_000_000_000) + f.col("id"),
            "amount": f.col("id") * 0.25,
            "quantity": (f.col("id") % 9).cast("int"),
            "note": f.when(f.col("id") % 3 == 0, f.lit("leave at door")),
            "_deleted": f.lit(False),
            "_rejected": f.lit(None).cast(self._schema["_rejected"].dataType),
        }
        meta = {"order": order, "key": known["customer"], "topic": f.lit("orders"), "partition": f.lit(0)}
        fields = self._schema["_meta"].dataType.fields
        known["_meta"] = f.struct(*(meta.get(x.name, f.lit(None)).cast(x.dataType).alias(x.name) for x in fields))
        rows = ids.select(*(known[name].alias(name) for name in self._schema.names))
        rows.write.format("delta").mode("append").save(self._bronze)

    def _run(self) -> float:
        from jobs.run import run_tables

        started = time.perf_counter()
        run_tables(self._spark, self._config, ["silver.orders"], "available-now")
        return time.perf_counter() - started


def _config(arena: Arena, rows: int) -> Config:
    file = arena.project(f"merge{rows}").path
    text = yaml.safe_load(file.read_text())
    text["tables"] = {
        "bronze.orders": {"from": f"merge{rows}"},
        "silver.orders": {"from": "bronze.orders", "merge": {"keys": ["order_id"]}},
    }
    file.write_text(yaml.safe_dump(text))
    return load_config(file)
