"""Reads what the proof needs from the demo's tables and topics."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd
from pyspark.sql import DataFrame, SparkSession, Window
from pyspark.sql import functions as F

from jobs.demo.proof import Found, Positions
from jobs.demo.topic import read_topic
from jobs.golds.late import read_late
from jobs.quality import results
from jobs.rejects import QUARANTINE_SUFFIX
from jobs.tables import read, table_path, totals, version
from jobs.timetravel.diff import diff
from jobs.timetravel.history import history
from pipeline.config import Config

STREAMS = {"flights": ["flight_id", "status"], "weather": ["origin", "time_hour"]}
READING = STREAMS["weather"]


def find(spark: SparkSession, config: Config, acknowledged: Mapping[str, int], weather_before: int) -> Found:
    """Look everything up. ``acknowledged``: records per stream, as the producers were told; ``weather_before``: silver.weather's
    version before the late readings were put."""

    def frame(name: str, *columns: str) -> pd.DataFrame:
        rows = read(spark, config, name)
        return (rows.select(*columns) if columns else rows).toArrow().to_pandas()

    positions = {stream: _positions(read(spark, config, f"bronze.{stream}")) for stream in STREAMS}
    frames = {
        "silver.flights": frame("silver.flights", "flight_id", "origin", "status", "dep_delay", "arr_delay"),
        "silver.weather": frame("silver.weather"),
        "silver.trusted_weather": frame("silver.trusted_weather"),
        "gold.delays": frame("gold.delays"),
        "gold.carriers": frame("gold.carriers"),
        "gold.plane_days": frame("gold.plane_days"),
        "gold.weather_hours": frame("gold.weather_hours"),
    }
    return Found(
        tables={f"bronze.{stream}": at.rows for stream, at in positions.items()} | {n: len(rows) for n, rows in frames.items()},
        flights=frames["silver.flights"],
        weather=frames["silver.weather"],
        delays=frames["gold.delays"],
        carriers=frames["gold.carriers"],
        plane_days=frames["gold.plane_days"],
        weather_hours=frames["gold.weather_hours"],
        too_late=_too_late(spark, config).toArrow().to_pandas(),
        trusted=frames["silver.trusted_weather"],
        held=_held(spark, config).toArrow().to_pandas(),
        rules=_rules(spark, config),
        diff=_diff(spark, config, weather_before),
        optimized=[name for name in config.tables if _is_optimized(spark, table_path(config, name))],
        acknowledged=dict(acknowledged),
        positions=positions,
        topics={stream: read_topic(spark, config, stream, by) for stream, by in STREAMS.items()},
        repeats_dropped={stream: totals(spark, config, f"bronze.{stream}")["repeats"] for stream in STREAMS},
    )


def _too_late(spark: SparkSession, config: Config) -> DataFrame:
    record = F.from_json("record", "origin string, time_hour timestamp")
    return read_late(spark, config, "gold.weather_hours").select(record.alias("record")).select("record.*")


def _held(spark: SparkSession, config: Config) -> DataFrame:
    path = table_path(config, "silver.trusted_weather") + QUARANTINE_SUFFIX
    there = spark.read.format("delta").load(path) if version(spark, path) >= 0 else None
    return there.select(READING) if there is not None else spark.createDataFrame([], "origin string, time_hour timestamp")


def _rules(spark: SparkSession, config: Config) -> dict[str, int]:
    judged = results.read(spark, config)
    if judged is None:
        return {}
    failed = judged.groupBy("table", "rule").agg(F.sum("rows_failed").alias("failed"))
    return {f"{row['table']}: {row['rule']}": row["failed"] for row in failed.collect()}


def _is_optimized(spark: SparkSession, path: str) -> bool:
    return any(one.operation == "OPTIMIZE" for one in history(spark, path))


def _diff(spark: SparkSession, config: Config, before: int) -> dict[str, int]:
    after = version(spark, table_path(config, "silver.weather"))
    found = diff(spark, config, "silver.weather", before, after, sample=0)
    return {"added": found.added, "removed": found.removed, "changed": found.changed}


def _positions(bronze: DataFrame) -> Positions:
    """The producer's sequence numbers are the source's positions: each once, and rising along the order of every key."""
    rows = bronze.select(F.col("_meta.seq").alias("seq"), F.col("_meta.key").alias("key"), F.col("_meta.order").alias("order"))
    before = F.lag("seq").over(Window.partitionBy("key").orderBy("order"))
    ordered = rows.withColumn("before", before)
    late = F.count_if(F.col("before") >= F.col("seq"))
    found = ordered.agg(F.count("*"), F.countDistinct("seq"), F.min("seq"), F.max("seq"), late).first()
    return Positions(*(found or (0, 0, None, None, 0)))
