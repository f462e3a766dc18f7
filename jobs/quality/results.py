"""``quality.results``: what each rule said about each micro-batch, in a Delta table of the warehouse.

One row for each rule and micro-batch, once: the commit carries the query's id and the micro-batch's number (``txnAppId``,
``txnVersion``), so Delta leaves out a micro-batch that is tried again.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import types as T

from jobs import tables
from jobs.quality.judge import Outcome
from jobs.storage import has_entries
from pipeline import metrics
from pipeline.config import Config, TableConfig
from pipeline.errors import ConfigError, TableError

NAME = "quality.results"
_SOURCE = "expect"
SCHEMA = T.StructType(
    [
        T.StructField("table", T.StringType()),
        T.StructField("rule", T.StringType()),
        T.StructField("on_fail", T.StringType()),
        T.StructField("query", T.StringType()),
        T.StructField("micro_batch", T.LongType()),
        T.StructField("rows_checked", T.LongType()),
        T.StructField("rows_failed", T.LongType()),
        T.StructField("observed", T.StringType()),
        T.StructField("passed", T.BooleanType()),
        T.StructField("at", T.TimestampType()),
    ]
)


def create(spark: SparkSession, config: Config) -> None:
    """Make the table where it is not there yet. Two jobs that start together may both try: one of them finds it then."""
    table = TableConfig.model_validate({"name": NAME, "from": _SOURCE})
    try:
        tables.create(spark, config, table, _SOURCE, SCHEMA, statistics=("table", "rule", "at"))
    except (ConfigError, TableError):
        raise
    except Exception:
        if tables.find(spark, config, table, _SOURCE) is None:
            raise


def append(spark: SparkSession, config: Config, table: str, query: str, micro_batch: int, outcomes: Sequence[Outcome]) -> None:
    """Write the outcomes of a micro-batch of a query, unless they are there."""
    now = datetime.now(UTC)
    rows = [
        (
            table,
            one.rule.title,
            one.rule.on_fail,
            query,
            micro_batch,
            one.rows_checked,
            one.rows_failed,
            one.observed,
            one.passed,
            now,
        )
        for one in outcomes
    ]
    (
        spark.createDataFrame(rows, SCHEMA)
        .coalesce(1)
        .write.format("delta")
        .mode("append")
        .option("txnAppId", f"{NAME}:{table}:{query}")
        .option("txnVersion", str(micro_batch))
        .save(tables.table_path(config, NAME))
    )


def count(table: str, outcomes: Sequence[Outcome]) -> None:
    """Move the metrics; after a crash they begin anew, like every counter."""
    for one in outcomes:
        labels = (table, one.rule.title)
        metrics.RULE_CHECKED.labels(*labels).inc(one.rows_checked)
        metrics.RULE_FAILED.labels(*labels).inc(one.rows_failed or 0)
        metrics.RULE_HOLDS.labels(*labels).set(1 if one.passed else 0)


def read(spark: SparkSession, config: Config) -> DataFrame | None:
    """All results; None where no rule was judged yet."""
    path = tables.table_path(config, NAME)
    return spark.read.format("delta").load(path) if has_entries(spark, f"{path}/_delta_log") else None
