"""Kafka → bronze, beside a plain Spark job: one record a message, from_avro, append, none of our columns or checks."""

from __future__ import annotations

import json
import time
from typing import Any

from bench.schema import ORDER
from jobs.run import run_tables
from pipeline.config import Config


def ours(spark: Any, config: Config) -> float:
    """Seconds of one available-now run of bronze.orders."""
    started = time.perf_counter()
    run_tables(spark, config, ["bronze.orders"], "available-now")
    return time.perf_counter() - started


def plain(spark: Any, config: Config, topic: str, folder: str) -> float:
    """Seconds of one available-now run of the plain job."""
    from pyspark.sql import functions as f
    from pyspark.sql.avro.functions import from_avro

    started = time.perf_counter()
    raw = (
        spark.readStream.format("kafka")
        .option("kafka.bootstrap.servers", config.connection.bootstrap)
        .option("subscribe", topic)
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
