"""Rows that a table did not take, kept in a Delta table beside it, with the reasons: ``<table>__rejected`` and
``<table>__quarantine``.

A row is known by its position in the log (``_meta``). Putting it again changes nothing, whether a micro-batch is tried again,
or all of bronze is read anew after a Spark checkpoint was lost: an insert-only MERGE, so a row that the first try took and the
second did not (a reference changed in between) is not lost either, as it would be by Delta's ``txnVersion``.
"""

from __future__ import annotations

from dataclasses import dataclass

from delta.tables import DeltaTable
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql import types as T

from jobs import tables
from jobs.conflicts import again_on_conflict
from jobs.evolution import TableColumns
from jobs.storage import has_entries
from jobs.tables import META
from pipeline.config import Config, TableConfig

REJECTED_SUFFIX, QUARANTINE_SUFFIX = "__rejected", "__quarantine"
HELD, REASONS = "_held", "_reasons"
"""``_held``: struct<reasons array<string>, micro_batch bigint, at timestamp, redriven_at timestamp>. ``_reasons`` becomes its
first field when a row is put."""

_POSITION = ("topic", "partition", "order.generation", "order.offset", "order.index")
_STATISTICS = (f"{META}.order.offset",)


@dataclass(frozen=True, slots=True)
class Companion:
    """The table beside ``table`` with one of the suffixes; made with the first row."""

    spark: SparkSession
    config: Config
    table: str
    suffix: str

    @property
    def name(self) -> str:
        return f"{self.table}{self.suffix}"

    @property
    def path(self) -> str:
        return tables.table_path(self.config, self.name)

    def put(self, rows: DataFrame, micro_batch: int) -> None:
        """Keep rows that have ``_meta`` and ``_reasons``. Those that are there already stay as they are."""
        held = F.struct(
            F.col(REASONS).alias("reasons"),
            F.lit(micro_batch).cast("long").alias("micro_batch"),
            F.current_timestamp().alias("at"),
            F.lit(None).cast("timestamp").alias("redriven_at"),
        )
        rows = rows.withColumn(HELD, held).drop(REASONS)
        if not self.exists():
            tables.create(self.spark, self.config, self._configured(), self.table, _nullable(rows.schema), statistics=_STATISTICS)
        columns = TableColumns(self.spark, self.name, self.path)
        columns.load()
        rows, _ = columns.follow(rows)
        rows = rows.persist()
        try:
            offset = f"{META}.order.offset"
            low, high = rows.agg(F.min(offset), F.max(offset)).collect()[0]
            near = F.col(f"t.{offset}").between(F.lit(low), F.lit(high))  # files of other offsets are not read
            again_on_conflict(lambda: self._insert(rows, near), self.name)
        finally:
            rows.unpersist()

    def _insert(self, rows: DataFrame, near: Column) -> None:
        target = DeltaTable.forPath(rows.sparkSession, self.path).alias("t")
        merge = target.merge(rows.alias("s"), same_position("t.", "s.") & near).withSchemaEvolution()
        merge.whenNotMatchedInsertAll().execute()

    def exists(self) -> bool:
        return has_entries(self.spark, f"{self.path}/_delta_log")

    def waiting(self) -> DataFrame | None:
        """The rows that were not redriven, with ``_held``; None where there never was one."""
        if not self.exists():
            return None
        return self.spark.read.format("delta").load(self.path).where(F.col(f"{HELD}.redriven_at").isNull())

    def mark_redriven(self, rows: DataFrame) -> None:
        """Note that these rows are in the table now."""
        (
            DeltaTable.forPath(self.spark, self.path)
            .alias("t")
            .merge(rows.select(META).alias("s"), same_position("t.", "s."))
            .whenMatchedUpdate(set={f"{HELD}.redriven_at": F.current_timestamp()})
            .execute()
        )

    def _configured(self) -> TableConfig:
        return TableConfig.model_validate({"name": self.name, "from": self.table})


def _nullable(schema: T.StructType) -> T.StructType:
    """Everything may be null, at any depth: that an expression never is null is no promise of the table's."""

    def kind(one: T.DataType) -> T.DataType:
        if isinstance(one, T.StructType):
            return _nullable(one)
        if isinstance(one, T.ArrayType):
            return T.ArrayType(kind(one.elementType))
        return T.MapType(one.keyType, kind(one.valueType)) if isinstance(one, T.MapType) else one

    return T.StructType([T.StructField(field.name, kind(field.dataType)) for field in schema.fields])


def same_position(left: str, right: str) -> Column:
    """Whether two rows are the same record of the log."""
    same = F.lit(True)
    for part in _POSITION:
        same = same & F.col(f"{left}{META}.{part}").eqNullSafe(F.col(f"{right}{META}.{part}"))
    return same


def position(prefix: str = "") -> list[Column]:
    """A record's place in the log, in the order of its being read: of two rows the smaller came first."""
    return [F.col(f"{prefix}{META}.{part}") for part in ("ingested_at", *_POSITION)]
