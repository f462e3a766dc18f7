"""Rows that came after the watermark, or without an event time: ``<table>__late``, each exactly once.

The rows of a step that are late are written before the step itself, and their commit says which step that is (``since``,
``until``). A step that died in between is finished up to the same ``until``: the same rows are late, and they are there already.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql import types as T

from jobs import tables
from jobs.commits import newest_commit_of_ours
from jobs.golds.commit import Output
from jobs.golds.sources import CHANGE, VERSION, Position
from jobs.tables import META, RESERVED
from pipeline.config import Config, TableConfig
from pipeline.config.gold import LATE_SUFFIX
from pipeline.errors import TableError

MISSED = "_headrace_missed"
WINDOWS = T.ArrayType(T.StructType([T.StructField("start", T.TimestampType()), T.StructField("end", T.TimestampType())]))
_PLACE = T.StructType(
    [
        T.StructField("topic", T.StringType()),
        T.StructField("partition", T.IntegerType()),
        T.StructField("offset", T.LongType()),
        T.StructField("index", T.IntegerType()),
    ]
)
SCHEMA = T.StructType(
    [
        T.StructField("source", T.StringType()),
        T.StructField("reason", T.StringType()),
        T.StructField("event_time", T.TimestampType()),
        T.StructField("watermark", T.TimestampType()),
        T.StructField("missed", WINDOWS),
        T.StructField("change", T.StringType()),
        T.StructField("version", T.LongType()),
        T.StructField("place", _PLACE),
        T.StructField("record", T.StringType()),
    ]
)
LATE, NO_TIME = "late", "no event time"
Positions = Mapping[str, Position]


class LateTable:
    """The late rows of one gold table. One thread at a time."""

    def __init__(self, spark: SparkSession, config: Config, table: TableConfig) -> None:
        self._spark, self._config = spark, config
        self._table = table.model_copy(update={"name": table.name + LATE_SUFFIX, "cluster_by": []})
        self._output = Output(spark, config, self._table)

    def prepare(self) -> None:
        """Make the table where it is not there yet."""
        if not self._output.is_there:
            tables.create(self._spark, self._config, self._table, ",".join(self._table.sources), SCHEMA)

    def under_way(self, since: Mapping[str, Any]) -> dict[str, Position] | None:
        """Up to where the step from ``since`` goes whose late rows are written; None for a step that is still to begin."""
        noted = self._output.metadata() or {}
        if noted.get("since") != since:
            return None
        return {name: Position.from_json(at) for name, at in noted["until"].items()}

    def add(self, rows: DataFrame, since: Mapping[str, Any], until: Positions) -> int:
        """Append a step's late rows; returns how many. Where they are written already, nothing is done."""
        if self.under_way(since) is None:
            rows = rows.persist()
            try:
                if rows.isEmpty():
                    return 0
                note = {"since": since, "until": {name: at.to_json() for name, at in until.items()}}
                self._output.append(rows.select(*SCHEMA.fieldNames()), note)
            finally:
                rows.unpersist()
        commit = newest_commit_of_ours(self._spark, self._output.path)
        return commit.rows if commit is not None else 0

    def start_anew(self, rows: DataFrame) -> int:
        """Only these, for a table that is computed anew: what was late is in its windows now. Returns how many."""
        self._output.overwrite(rows.select(*SCHEMA.fieldNames()), {"since": None})
        commit = newest_commit_of_ours(self._spark, self._output.path)
        return commit.rows if commit is not None else 0

    def without(self, rows: DataFrame, source: str) -> DataFrame:
        """Rows of a bronze source that are not late ones."""
        late = self._output.stored().where(F.col("source") == source).select(
            *(F.col(f"place.{name}").alias(f"_late_{name}") for name in ("topic", "partition", "offset", "index"))
        )  # fmt: skip
        same = F.lit(True)
        for name, column in _place().items():
            same = same & (column == F.col(f"_late_{name}"))
        return rows.join(late, same, "left_anti")


def late_rows(rows: DataFrame, source: str, on: str, missed: Column | None, watermark_us: int | None) -> DataFrame:
    """Changes as rows of the late table. ``missed`` are the windows that they came too late for, if there are windows."""
    is_bronze = source.startswith("bronze.")
    place = F.struct(*(column.alias(name) for name, column in _place().items()))
    own = [F.col(f"`{name}`") for name in rows.columns if name not in {*RESERVED, CHANGE, VERSION, MISSED}]
    watermark = F.lit(None) if watermark_us is None else F.timestamp_micros(F.lit(watermark_us))
    nowhere = F.lit(None).cast(WINDOWS)
    return rows.select(
        F.lit(source).alias("source"),
        F.when(F.col(f"`{on}`").isNull(), NO_TIME).otherwise(LATE).alias("reason"),
        F.col(f"`{on}`").cast("timestamp").alias("event_time"),
        watermark.cast("timestamp").alias("watermark"),
        (nowhere if missed is None else missed).alias("missed"),
        F.col(CHANGE).alias("change"),
        (F.lit(None) if is_bronze else F.col(VERSION)).cast("bigint").alias("version"),
        (place if is_bronze else F.lit(None)).cast(_PLACE).alias("place"),
        F.to_json(F.struct(*own)).alias("record"),
    )


def read_late(spark: SparkSession, config: Config, table: str) -> DataFrame:
    """The late rows of a gold table. Raises TableError where it has none of these."""
    path = tables.table_path(config, config.table(table).name) + LATE_SUFFIX
    if tables.version(spark, path) < 0:
        raise TableError(f"{table} has no table of late rows ({path}): only windows and joins have one, once they ran")
    return spark.read.format("delta").load(path)


def _place() -> dict[str, Column]:
    order = f"{META}.order"
    return {
        "topic": F.col(f"{META}.topic"), "partition": F.col(f"{META}.partition"),
        "offset": F.col(f"{order}.offset"), "index": F.col(f"{order}.index"),
    }  # fmt: skip
