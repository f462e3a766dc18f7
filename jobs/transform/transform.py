"""The steps of ``transform:`` one after the other, and which step a row failed at.

A row that fails at a step (a cast or an expression that raises) is marked with the step's name in ``_failed`` and takes no
further part; the rest goes on. Our own columns (``_meta``, ``_deleted``, ``_failed``) travel through every step.
"""

from __future__ import annotations

from collections.abc import Mapping

from pyspark.errors import AnalysisException
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql import types as T

from jobs.expressions import VALUE, attempt, check_expression, literal, quoted, reason
from jobs.references import References
from jobs.tables import DELETED, META, REJECTED
from jobs.transform.function import call, load
from pipeline.config import TableConfig
from pipeline.config.transform import Step
from pipeline.errors import ConfigError

FAILED = "_failed"
_OWN = (META, DELETED, FAILED)


class Transform:
    """Compiled steps of one table. ``apply`` may be called for any number of micro-batches, by one thread at a time."""

    def __init__(self, spark: SparkSession, table: TableConfig, references: References, record_key: str | None) -> None:
        """``record_key`` is the column that holds the record's key; a delete has no values, so its key is put there first."""
        self._spark = spark
        self._references = references
        self._record_key = record_key
        self._steps = [(step, f"tables.{table.name}.transform[{n}] ({step.title})") for n, step in enumerate(table.transform)]
        self._functions = {step.title: load(step.python, where) for step, where in self._steps if step.python is not None}

    @property
    def is_dear(self) -> bool:
        """Whether a micro-batch should be transformed once and kept, not anew for each look at it."""
        return any(step.kind in ("join", "python") for step, _ in self._steps)

    def apply(self, rows: DataFrame) -> DataFrame:
        """Rows as silver takes them, with ``_failed``: the step's name where one failed, else null. Nothing is computed yet.

        Raises ConfigError naming the table and the step for one that does not fit the columns, TableError for a reference
        that is not there or would multiply rows.
        """
        # Always null, but not so that it is known before: see jobs.expressions.attempt.
        rows = rows.drop(REJECTED).withColumn(FAILED, F.when(F.col(f"{META}.order.offset") < 0, F.lit("no position")))
        if self._record_key in rows.columns:
            kind = rows.schema[self._record_key].dataType
            whole = F.coalesce(F.col(self._record_key), F.col(f"{META}.key").try_cast(kind))
            rows = rows.withColumn(self._record_key, F.when(F.col(DELETED), whole).otherwise(F.col(self._record_key)))
        for step, where in self._steps:
            try:
                rows = self._step(rows, step, where)
            except AnalysisException as error:
                raise ConfigError(f"{where} does not fit the columns ({_columns(rows)}): {reason(error)}") from error
        void = [field.name for field in rows.schema.fields if isinstance(field.dataType, T.NullType)]
        if void:
            raise ConfigError(f"{self._steps[-1][1]}: column {void[0]} has no type, it is always null: cast it to one")
        return rows

    def _step(self, rows: DataFrame, step: Step, where: str) -> DataFrame:
        if step.select is not None:
            _there(rows, step.select, where)
            return rows.select(*step.select, *_OWN)
        if step.rename is not None:
            return _rename(rows, step.rename, where)
        if step.cast is not None:
            _there(rows, step.cast, where)
            casts = {name: f"CAST({quoted(name)} AS {kind})" for name, kind in step.cast.items()}
            return self._computed(rows, casts, step, where)
        if step.columns is not None:
            _ours(step.columns, where)
            return self._computed(rows, step.columns, step, where)
        if step.filter is not None:
            return self._filtered(rows, step.filter, step, where)
        if step.flatten is not None:
            return _flatten(rows, step.flatten, where)
        if step.join is not None:
            return self._joined(rows, step, where)
        return call(self._functions[step.title], rows, _OWN, where)

    def _computed(self, rows: DataFrame, expressions: Mapping[str, str], step: Step, where: str) -> DataFrame:
        alive = F.col(FAILED).isNull()
        failed, tries = F.col(FAILED), {}
        for number, (name, text) in enumerate(expressions.items()):
            check_expression(self._spark, text, where)
            tries[f"_try_{number}"] = attempt(self._spark, text, where, alive)
            own = f"{step.title}: {name}" if len(expressions) > 1 or step.name else step.title
            failed = F.coalesce(failed, F.when(F.col(f"_try_{number}").isNull(), F.lit(own)))
        values = {name: F.col(f"_try_{number}.{VALUE}") for number, name in enumerate(expressions)}
        return rows.withColumns(tries).withColumns(values | {FAILED: failed}).drop(*tries)

    def _filtered(self, rows: DataFrame, text: str, step: Step, where: str) -> DataFrame:
        check_expression(self._spark, text, where)
        kind = rows.select(F.expr(text).alias(VALUE)).schema[VALUE].dataType
        if not isinstance(kind, T.BooleanType):
            raise ConfigError(f"{where}: {text!r} is {kind.simpleString()}: expected a condition, which is true or false")
        rows = rows.withColumn("_try", attempt(self._spark, text, where, F.col(FAILED).isNull() & ~F.col(DELETED)))
        raised = ~F.col(DELETED) & F.col("_try").isNull()
        rows = rows.withColumn(FAILED, F.coalesce(FAILED, F.when(raised, F.lit(step.title))))
        return rows.where(F.col(FAILED).isNotNull() | F.col(DELETED) | F.col(f"_try.{VALUE}")).drop("_try")

    def _joined(self, rows: DataFrame, step: Step, where: str) -> DataFrame:
        assert step.join is not None
        assert step.by is not None
        _there(rows, step.by, where)
        theirs = self._references.unique(step.join, list(step.by.values()), where)
        taken = step.take or [name for name in theirs.columns if name not in step.by.values()]
        _there(theirs, taken, f"{where}.take")
        if both := sorted({name.lower() for name in taken} & {name.lower() for name in rows.columns}):
            raise ConfigError(f"{where}: both sides have a column {both[0]!r}: name those to take (take:), or rename ours first")
        keys = {f"_on_{number}": name for number, name in enumerate(step.by.values())}
        other = theirs.select(*(F.col(name).alias(key) for key, name in keys.items()), *taken)
        same: Column = F.lit(True)
        for key, ours in zip(keys, step.by, strict=True):
            same = same & (F.col(ours) == F.col(key))
        return rows.join(F.broadcast(other), same, "left").drop(*keys)


def _rename(rows: DataFrame, names: Mapping[str, str], where: str) -> DataFrame:
    _there(rows, names, where)
    _ours(names.values(), where)
    others = {name.lower() for name in rows.columns if name not in names}
    for new in names.values():
        if new.lower() in others or [one.lower() for one in names.values()].count(new.lower()) > 1:
            raise ConfigError(f"{where}: there would be two columns {new!r}")
    return rows.withColumnsRenamed(dict(names))


def _flatten(rows: DataFrame, names: list[str], where: str) -> DataFrame:
    _there(rows, names, where)
    columns: list[Column] = []
    for field in rows.schema.fields:
        if field.name not in names:
            columns.append(F.col(quoted(field.name)))
            continue
        if not isinstance(field.dataType, T.StructType):
            raise ConfigError(f"{where}: {field.name} is {field.dataType.simpleString()}: only a struct can be flattened")
        own = quoted(field.name)
        columns += [F.col(f"{own}.{quoted(inner)}").alias(f"{field.name}_{inner}") for inner in field.dataType.names]
    flat = rows.select(*columns)
    lower = [name.lower() for name in flat.columns]
    if twice := sorted({name for name in lower if lower.count(name) > 1}):
        raise ConfigError(f"{where}: there would be two columns {twice[0]!r}: rename the one that is there")
    return flat


def _there(rows: DataFrame, names: Mapping[str, str] | list[str], where: str) -> None:
    known = [name for name in rows.columns if not name.startswith("_")]
    for name in names:
        if name not in known:
            raise ConfigError(f"{where}: there is no column {name!r}; there are: {', '.join(known)}")


def _ours(names: object, where: str) -> None:
    for name in names:  # type: ignore[attr-defined]
        if name.startswith("_"):
            raise ConfigError(f"{where}: names that begin with _ are ours: call {literal(name)} something else")


def _columns(rows: DataFrame) -> str:
    return ", ".join(name for name in rows.columns if name not in _OWN)
