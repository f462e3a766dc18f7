"""How a table's columns follow a reader's schema: what is new, what is wider, and what cannot be.

Delta adds columns by itself (mergeSchema); wider types are asked for one by one, since it widens an int to a double only then.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import types as T

from jobs.reader_schema import fields
from jobs.tables import RESERVED
from pipeline.errors import TableError

log = logging.getLogger("headrace.jobs")

_WIDENINGS = {
    (T.IntegerType, T.LongType),
    (T.IntegerType, T.DoubleType),
    (T.FloatType, T.DoubleType),
}
_WIDENING_PROPERTY = "delta.enableTypeWidening"


@dataclass(frozen=True, slots=True)
class Changes:
    """From a table's columns to those of rows. ``widened`` are (path, type) as ALTER TABLE takes them; ``narrower`` are
    columns of the rows to be cast to the table's type; ``problem`` says why the table cannot take the rows."""

    added: tuple[str, ...] = ()
    widened: tuple[tuple[str, str], ...] = ()
    narrower: tuple[str, ...] = ()
    problem: str | None = None


def changes(table: T.StructType, rows: T.StructType) -> Changes:
    """What has to happen to ``table`` before it can take ``rows``. Nullability is not looked at: everything is nullable."""
    look = _Look([], [], [])
    try:
        look.struct(table, rows, ())
    except _CannotError as error:
        return Changes(problem=str(error))
    return Changes(tuple(look.added), tuple(look.widened), tuple(look.narrower))


def sql_type(spark: SparkSession, tree: dict[str, Any]) -> T.StructType:
    """The struct that Spark makes of an Avro record."""
    jvm: Any = spark._jvm
    schema = jvm.org.apache.avro.Schema.Parser().parse(json.dumps(tree))
    converted = jvm.org.apache.spark.sql.avro.SchemaConverters.toSqlType(schema)
    return T.StructType.fromJson(json.loads(converted.dataType().json()))


class TableColumns:
    """The columns of a Delta table as they are, and their changing. Not thread-safe."""

    def __init__(self, spark: SparkSession, table: str, path: str) -> None:
        self._spark, self._table, self._path = spark, table, path
        self._stored = T.StructType()

    def load(self) -> None:
        """Read what the table has now."""
        self._stored = self._spark.read.format("delta").load(self._path).schema

    def problem(self, reader: dict[str, Any]) -> str | None:
        """Why the table cannot take the columns of a reader's schema; None if it can."""
        if taken := sorted(RESERVED.intersection(fields(reader))):
            return f"the fields {', '.join(taken)} have names that tables use themselves"
        return changes(self._stored, sql_type(self._spark, reader)).problem

    def follow(self, rows: DataFrame) -> tuple[DataFrame, bool]:
        """The rows as the table takes them, after its columns were widened for them, and whether they bring new columns
        (to be written with mergeSchema). Raises TableError where it cannot take them."""
        changed = changes(self._stored, rows.schema)
        if changed.problem is not None:
            raise TableError(f"{self._table} cannot take its source's rows: {changed.problem}. Make it anew under another name")
        if changed.added:
            log.info("%s: new columns %s", self._table, ", ".join(changed.added))
        if changed.widened:
            self._widen(changed.widened)
            self.load()
        return rows.withColumns({n: rows[n].cast(self._stored[n].dataType) for n in changed.narrower}), bool(changed.added)

    def _widen(self, widened: Sequence[tuple[str, str]]) -> None:
        """No file is rewritten. Done twice, it changes nothing the second time."""
        target = f"delta.`{self._path}`"
        self._spark.sql(f"ALTER TABLE {target} SET TBLPROPERTIES ('{_WIDENING_PROPERTY}' = 'true')")
        for column, kind in widened:
            log.info("%s: column %s becomes %s", self._table, column, kind)
            self._spark.sql(f"ALTER TABLE {target} ALTER COLUMN {column} TYPE {kind}")


class _CannotError(Exception):
    pass


@dataclass
class _Look:
    added: list[str]
    widened: list[tuple[str, str]]
    narrower: list[str]

    def struct(self, table: T.StructType, rows: T.StructType, path: tuple[str, ...]) -> None:
        there = {field.name.lower(): field for field in table.fields}
        for field in rows.fields:
            here = (*path, field.name)
            known = there.get(field.name.lower())
            if known is None:
                self.added.append(".".join(here))
            elif known.name != field.name:
                raise _CannotError(f"{'.'.join(here)} differs from the table's column {known.name} in upper and lower case only")
            else:
                self.type(known.dataType, field.dataType, here)

    def type(self, table: T.DataType, rows: T.DataType, path: tuple[str, ...]) -> None:
        if isinstance(table, T.StructType) and isinstance(rows, T.StructType):
            self.struct(table, rows, path)
        elif isinstance(table, T.ArrayType) and isinstance(rows, T.ArrayType):
            self.type(table.elementType, rows.elementType, (*path, "element"))
        elif isinstance(table, T.MapType) and isinstance(rows, T.MapType):
            self.type(table.valueType, rows.valueType, (*path, "value"))
        elif table != rows:
            self.atom(table, rows, path)

    def atom(self, table: T.DataType, rows: T.DataType, path: tuple[str, ...]) -> None:
        if _widens(table, rows):
            self.widened.append((".".join(f"`{part}`" for part in path), rows.simpleString()))
        elif _widens(rows, table) and len(path) == 1:
            self.narrower.append(path[0])
        else:
            raise _CannotError(f"{'.'.join(path)} is {rows.simpleString()}, and {table.simpleString()} in the table")


def _widens(old: T.DataType, new: T.DataType) -> bool:
    if isinstance(old, T.DecimalType) and isinstance(new, T.DecimalType):
        return old.scale == new.scale and old.precision < new.precision
    return (type(old), type(new)) in _WIDENINGS
