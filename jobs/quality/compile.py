"""Rules as Spark expressions: a condition in SQL for each row rule, an aggregate for each micro-batch rule. Nothing runs here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pyspark.errors import AnalysisException, ParseException
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F
from pyspark.sql import types as T

from jobs.expressions import check_condition, check_query, literal, quoted, reason
from jobs.tables import DELETED, META
from pipeline.config.quality import Rule
from pipeline.errors import ConfigError

ROWS_VIEW = "rows"


@dataclass(frozen=True, slots=True)
class RowRule:
    """``condition`` is true or null for a good row. ``helper`` is the boolean column that the condition looks at where the
    answer takes other rows or tables (unique, references); jobs.quality.lookup computes it."""

    rule: Rule
    number: int
    condition: str
    helper: str | None = None

    @property
    def fails(self) -> str:
        """The column that says whether a row fails it."""
        return f"_fails_{self.number}"


@dataclass(frozen=True, slots=True)
class WholeRule:
    """A rule over a whole micro-batch. ``aggregate`` gives what is observed; None: it takes no look at rows (exists, type), or a
    query of its own (sql)."""

    rule: Rule
    number: int
    aggregate: Column | None = None

    @property
    def observes(self) -> str:
        return f"_observes_{self.number}"


def compile_row_rule(rule: Rule, number: int, rows: DataFrame, where: str) -> RowRule:
    """``rows`` are empty, with the columns that rules will see. Raises ConfigError, beginning with ``where``."""
    for name in rule.column:
        check_column(rows, name, where)
    if rule.check in ("unique", "references"):
        helper = f"_helper_{number}"
        return RowRule(rule, number, helper, helper)
    condition = _condition(rule, rows, where)
    check_condition(rows, condition, where)
    return RowRule(rule, number, condition)


def compile_whole_rule(rule: Rule, number: int, rows: DataFrame, where: str) -> WholeRule:
    """Raises ConfigError, beginning with ``where``, for a rule that cannot be asked of such rows."""
    if rule.check == "type":
        _data_type(rule, where)
    if rule.check in ("exists", "type"):
        return WholeRule(rule, number)
    if rule.sql is not None:
        _check_query(rule.sql, rows, where)
        return WholeRule(rule, number)
    for name in rule.column:
        check_column(rows, name, where)
    aggregate = _aggregate(rule, rows, where)
    try:
        rows.agg(aggregate)
    except AnalysisException as error:
        raise ConfigError(f"{where}: {rule.check} does not fit the column's type: {reason(error)}") from error
    return WholeRule(rule, number, aggregate)


def query_answer(rule: Rule, rows: DataFrame) -> Any:
    """What the rule's own SQL says about a micro-batch."""
    assert rule.sql is not None
    rows.createOrReplaceTempView(ROWS_VIEW)
    found = rows.sparkSession.sql(rule.sql).collect()
    return found[0][0] if found else None


def column_type(rows: DataFrame, name: str) -> T.DataType | None:
    """The type of a column (``payload.number``: of a struct's field); None where there is none of that name."""
    kind: T.DataType = rows.schema
    for part in name.split("."):
        if not isinstance(kind, T.StructType) or part not in kind.names:
            return None
        kind = kind[part].dataType
    return kind


def holds_of_columns(rule: Rule, rows: DataFrame) -> tuple[bool, str]:
    """``exists`` and ``type``: whether they hold, and what there is."""
    kind = column_type(rows, rule.column[0])
    if kind is None:
        return False, "no such column"
    wanted = _data_type(rule, rule.title) if rule.type is not None else kind
    return kind == wanted, kind.simpleString()


def check_column(rows: DataFrame, name: str, where: str) -> None:
    """Raises ConfigError where there is no such column."""
    if column_type(rows, name) is None:
        there = ", ".join(column for column in rows.columns if not column.startswith("_"))
        raise ConfigError(f"{where}: there is no column {name!r}; there are: {there}")


def _condition(rule: Rule, rows: DataFrame, where: str) -> str:
    if rule.rule is not None:
        return rule.rule
    name = rule.column[0]
    column, kind = _path(name), column_type(rows, name)
    if rule.complete:
        return f"{column} IS NOT NULL"
    if rule.values is not None:
        return f"{column} IN ({', '.join(_typed(value, kind, where) for value in rule.values)})"
    if rule.matches is not None:
        _check_pattern(rows, rule.matches, where)
        return f"{column} RLIKE {literal(f'^(?:{rule.matches})$')}"
    assert rule.between is not None
    low, high = rule.between
    sides = [
        f"{column} {sign} {_typed(bound, kind, where)}" for sign, bound in ((">=", low), ("<=", high)) if bound is not None
    ]
    return " AND ".join(sides)


def _aggregate(rule: Rule, rows: DataFrame, where: str) -> Column:
    if rule.rows is not None:
        return F.count_if(~F.col(DELETED))
    column = F.when(~F.col(DELETED), F.col(_path(rule.column[0])))
    if rule.complete is not None:
        return F.count(column) / F.nullif(F.count_if(~F.col(DELETED)), F.lit(0))
    if rule.fresh_within is not None:
        if not isinstance(column_type(rows, rule.column[0]), T.TimestampType | T.TimestampNTZType | T.DateType):
            raise ConfigError(f"{where}: fresh_within needs a column of times; cast it with transform:")
        newest = F.max(column.cast("timestamp"))
        return (F.unix_micros(F.max(f"{META}.ingested_at")) - F.unix_micros(newest)) / F.lit(1e6)
    if not isinstance(column_type(rows, rule.column[0]), T.NumericType):
        raise ConfigError(f"{where}: {rule.check} needs a column of numbers")
    number = column.cast("double")
    return F.avg(number) if rule.mean is not None else F.stddev_samp(number)


def _check_query(text: str, rows: DataFrame, where: str) -> None:
    session = rows.sparkSession.newSession()
    check_query(session, text, where)
    session.createDataFrame([], rows.schema).createOrReplaceTempView(ROWS_VIEW)
    try:
        found = session.sql(text).schema
    except (AnalysisException, ParseException) as error:
        raise ConfigError(f"{where}: {text!r} is a query over the view `{ROWS_VIEW}`: {reason(error)}") from error
    if len(found) != 1 or not isinstance(found[0].dataType, T.BooleanType):
        raise ConfigError(f"{where}: {text!r} gives {found.simpleString()}: expected one column that is true or false")


def _check_pattern(rows: DataFrame, pattern: str, where: str) -> None:
    jvm: Any = rows.sparkSession._jvm
    try:
        jvm.java.util.regex.Pattern.compile(pattern)
    except Exception as error:
        found = next((line for line in str(error).splitlines() if "PatternSyntaxException" in line), "")
        detail = found.rpartition("Exception: ")[2] or "see java.util.regex.Pattern"
        raise ConfigError(f"{where}: {pattern!r} is no regular expression: {detail}") from error


def _typed(value: Any, kind: T.DataType | None, where: str) -> str:
    """A value as the column's type, or the comparison would be made as texts, or raise for every row."""
    assert kind is not None
    fits = {bool: T.BooleanType, int: T.NumericType, float: T.NumericType}.get(type(value))
    if (fits is not None and not isinstance(kind, fits)) or (fits is None and isinstance(kind, T.NumericType | T.BooleanType)):
        raise ConfigError(f"{where}: {value!r} cannot be compared with a column of type {kind.simpleString()}")
    if isinstance(kind, T.TimestampType | T.TimestampNTZType | T.DateType):
        return f"CAST({literal(value)} AS {kind.simpleString()})"
    return literal(value)


def _data_type(rule: Rule, where: str) -> T.DataType:
    try:
        return T.DataType.fromDDL(rule.type or "")
    except Exception as error:
        raise ConfigError(f"{where}: {rule.type!r} is no type of Spark's SQL, such as bigint or timestamp") from error


def _path(name: str) -> str:
    return ".".join(quoted(part) for part in name.split("."))
