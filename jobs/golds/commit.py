"""One Delta commit of a gold table: its rows, and in the commit's metadata what they are made from.

Whoever starts next reads that metadata, so a step that was killed is done again from the same positions, and one that was
committed is never done twice: there is no Spark checkpoint beside the table that could differ from it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from delta.tables import DeltaTable
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql import types as T

from jobs import crash, tables
from jobs.commits import FORMAT, newest_commit_of_ours
from jobs.golds.keys import Keys
from jobs.writers import Writer
from pipeline.config import Config, TableConfig

_USER_METADATA = "spark.databricks.delta.commitInfo.userMetadata"
_OP = "_headrace_op"
_DELETE, _INSERT = "delete", "insert"
Metadata = Mapping[str, Any]


class Output:
    """The Delta table of a gold table. One thread at a time; the session is its own (settings travel in it)."""

    def __init__(self, spark: SparkSession, config: Config, table: TableConfig) -> None:
        self._spark, self._config, self._table = spark, config, table
        self.path = tables.table_path(config, table.name)
        self._writer = Writer(spark, table.name, tables.checkpoint_path(config, table.name))
        self._writer.take()
        # A step that changes no row still moves the positions, and they have to be noted.
        spark.conf.set("spark.databricks.delta.skipRecordingEmptyCommits", "false")

    @property
    def is_there(self) -> bool:
        return tables.find(self._spark, self._config, self._table, self._source_text) is not None

    def metadata(self) -> Metadata | None:
        """What the newest commit of ours notes; None before the first."""
        commit = newest_commit_of_ours(self._spark, self.path) if self.is_there else None
        return None if commit is None else commit.metadata

    def version(self) -> int:
        return tables.version(self._spark, self.path)

    def schema(self) -> T.StructType:
        return self._spark.read.format("delta").load(self.path).schema

    def stored(self) -> DataFrame:
        return self._spark.read.format("delta").load(self.path)

    def overwrite(self, rows: DataFrame, metadata: Metadata) -> None:
        """All rows anew; columns may change."""
        if not self.is_there:
            tables.create(self._spark, self._config, self._table, self._source_text, nullable(rows.schema))
            crash.reach("gold.table_made")
        writer = rows.write.format("delta").mode("overwrite").option("overwriteSchema", "true")
        with self._crash_points():
            writer.option("userMetadata", _dump(metadata)).save(self.path)

    def append(self, rows: DataFrame, metadata: Metadata) -> None:
        """More rows."""
        with self._crash_points():
            rows.write.format("delta").mode("append").option("userMetadata", _dump(metadata)).save(self.path)

    def replace(self, rows: DataFrame, keys: Keys, metadata: Metadata) -> None:
        """Put ``rows`` in the place of all rows that have one of ``keys`` (columns of the table)."""
        names = keys.rows.columns
        columns = self.schema().fieldNames()
        quoted = {name: f"`{name}`" for name in columns}
        gone = keys.rows.select(*(F.col(q) if n in names else F.lit(None).alias(n) for n, q in quoted.items()))
        new = rows.select(*quoted.values()).withColumn(_OP, F.lit(_INSERT))
        source = gone.withColumn(_OP, F.lit(_DELETE)).unionByName(new)
        same = F.col(f"s.{_OP}") == _DELETE
        for name in names:
            same = same & F.col(f"t.`{name}`").eqNullSafe(F.col(f"s.`{name}`"))
        for name, bounds in zip(names, keys.bounds, strict=True):  # files without any of the keys are not read
            same = same & bounds.hold(F.col(f"t.`{name}`"))
        with self._noted(metadata), self._crash_points():
            (
                DeltaTable.forPath(self._spark, self.path)
                .alias("t")
                .merge(source.alias("s"), same)
                .whenMatchedDelete()
                .whenNotMatchedInsert(f"s.{_OP} = '{_INSERT}'", {q: f"s.{q}" for q in quoted.values()})
                .execute()
            )

    def note(self, metadata: Metadata) -> None:
        """A commit without rows."""
        self.append(self._spark.createDataFrame([], self.schema()), metadata)

    @contextmanager
    def _crash_points(self) -> Iterator[None]:
        self._writer.check()
        crash.reach("gold.before_write")
        crash.reach_when_written("gold.before_commit", self.path)
        yield
        crash.reach("gold.after_commit")

    @contextmanager
    def _noted(self, metadata: Metadata) -> Iterator[None]:
        self._spark.conf.set(_USER_METADATA, _dump(metadata))
        try:
            yield
        finally:
            self._spark.conf.unset(_USER_METADATA)

    @property
    def _source_text(self) -> str:
        return ",".join(self._table.sources)


def nullable(schema: T.StructType) -> T.StructType:
    return T.StructType([T.StructField(field.name, field.dataType, True) for field in schema.fields])


def _dump(metadata: Metadata) -> str:
    return json.dumps({"headrace": FORMAT} | dict(metadata), separators=(",", ":"))
