"""Reads what the proof needs from the demo's tables and topics."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd
from pyspark.sql import DataFrame, SparkSession, Window
from pyspark.sql import functions as F

from jobs.demo.proof import Found, Positions
from jobs.demo.topic import read_topic
from jobs.tables import read, totals
from pipeline.config import Config

STREAMS = {"flights": ["flight_id", "status"], "weather": ["origin", "time_hour"]}


def find(spark: SparkSession, config: Config, acknowledged: Mapping[str, int]) -> Found:
    """Look everything up. ``acknowledged``: records per stream, as the producers were told."""

    def frame(name: str, *columns: str) -> pd.DataFrame:
        rows = read(spark, config, name)
        return (rows.select(*columns) if columns else rows).toArrow().to_pandas()

    positions = {stream: _positions(read(spark, config, f"bronze.{stream}")) for stream in STREAMS}
    frames = {
        "silver.flights": frame("silver.flights", "flight_id", "origin", "status", "dep_delay", "arr_delay"),
        "silver.weather": frame("silver.weather"),
        "gold.delays": frame("gold.delays"),
        "gold.carriers": frame("gold.carriers"),
    }
    return Found(
        tables={f"bronze.{stream}": at.rows for stream, at in positions.items()} | {n: len(rows) for n, rows in frames.items()},
        flights=frames["silver.flights"],
        weather=frames["silver.weather"],
        delays=frames["gold.delays"],
        carriers=frames["gold.carriers"],
        acknowledged=dict(acknowledged),
        positions=positions,
        topics={stream: read_topic(spark, config, stream, by) for stream, by in STREAMS.items()},
        repeats_dropped={stream: totals(spark, config, f"bronze.{stream}")["repeats"] for stream in STREAMS},
    )


def _positions(bronze: DataFrame) -> Positions:
    """The producer's sequence numbers are the source's positions: each once, and rising along the order of every key."""
    rows = bronze.select(F.col("_meta.seq").alias("seq"), F.col("_meta.key").alias("key"), F.col("_meta.order").alias("order"))
    before = F.lag("seq").over(Window.partitionBy("key").orderBy("order"))
    ordered = rows.withColumn("before", before)
    late = F.count_if(F.col("before") >= F.col("seq"))
    found = ordered.agg(F.count("*"), F.countDistinct("seq"), F.min("seq"), F.max("seq"), late).first()
    return Positions(*(found or (0, 0, None, None, 0)))
