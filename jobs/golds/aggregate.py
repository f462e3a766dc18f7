"""The aggregates of windows, in one phase or in two.

Salted: by (key, salt) first, then by key, so that no task has all rows of a hot key (DESIGN.md §5). Both ways give the same
table; sums of floating point numbers may differ in their last digits, as they do with any other order of rows.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

from pipeline.errors import ConfigError

SALTS = 16
SALT = "_headrace_salt"
_CALL = re.compile(r"\s*(\w+)\s*\((.*)\)\s*", re.DOTALL)
_SAME = {"min": "min", "max": "max", "bool_and": "bool_and", "every": "bool_and", "bool_or": "bool_or", "some": "bool_or"}
_ADDED = ("count", "count_if", "sum")
_MEANS = ("avg", "mean")
TWO_PHASES = sorted([*_SAME, *_ADDED, *_MEANS])


@dataclass(frozen=True, slots=True)
class TwoPhases:
    """One aggregate: ``parts`` in the first phase (SQL over rows), ``total`` in the second (SQL over ``{0}``, ``{1}``)."""

    parts: Sequence[str]
    total: str


def two_phases(where: str, expression: str) -> TwoPhases:
    """How an aggregate is computed in two phases. Raises ConfigError naming ``where`` for one that cannot be."""
    match = _CALL.fullmatch(expression)
    name, inner = (match[1].lower(), match[2]) if match else ("", "")
    if not _is_one_call(inner) or re.match(r"\s*distinct\b", inner, re.IGNORECASE):
        name = ""
    if name in _SAME:
        return TwoPhases([expression], f"{_SAME[name]}({{0}})")
    if name in _ADDED:
        return TwoPhases([expression], "sum({0})" if name == "sum" else "coalesce(sum({0}), 0L)")
    if name in _MEANS:
        return TwoPhases([f"sum({inner})", f"count({inner})"], "try_divide(sum({0}), sum({1}))")
    raise ConfigError(
        f"{where}: {expression!r} cannot be put together from parts, as salted tables need it: use one of "
        f"{', '.join(TWO_PHASES)} over an expression, or set `salted: false`"
    )


def _is_one_call(inner: str) -> bool:
    """Whether the parenthesis closes at the end only: not ``sum(a) / sum(b)``."""
    depth = 0
    for part in re.sub(r"'(?:[^'\\]|\\.|'')*'", "", inner):
        depth += {"(": 1, ")": -1}.get(part, 0)
        if depth < 0:
            return False
    return depth == 0


class Aggregates:
    """``columns``: name → SQL aggregate. ``salted`` rows have a column SALT."""

    def __init__(self, where: str, columns: Mapping[str, str], salted: bool) -> None:
        self._columns = columns
        self._phases = {name: two_phases(f"{where}.{name}", text) for name, text in columns.items()} if salted else None

    def over(self, rows: DataFrame, by: Sequence[str]) -> DataFrame:
        """One row for each value of ``by``."""
        direct = rows.groupBy(*by).agg(*self._direct())
        if self._phases is None:
            return direct
        return self._typed(rows.groupBy(*by, SALT).agg(*self._parts()).groupBy(*by).agg(*self._totals()), direct)

    def over_sessions(self, rows: DataFrame, by: Sequence[str], on: str, gap: str) -> DataFrame:
        """One row for each session, with ``window_start`` and ``window_end``."""
        session = F.session_window(F.col(on), gap)
        ends = [F.col("session_window.start").alias("window_start"), F.col("session_window.end").alias("window_end")]
        direct = rows.groupBy(*by, session).agg(*self._direct()).select(*ends, *by, *self._columns)
        if self._phases is None:
            return direct
        parts = rows.groupBy(*by, SALT, session).agg(*self._parts()).select("*", *ends).drop("session_window", SALT)
        return self._typed(_merged(parts, by, self._totals()), direct)

    def _direct(self) -> list[Column]:
        return [F.expr(text).alias(name) for name, text in self._columns.items()]

    def _parts(self) -> list[Column]:
        phases = self._phases or {}
        return [F.expr(text).alias(f"{name}_{at}") for name, one in phases.items() for at, text in enumerate(one.parts)]

    def _totals(self) -> list[Column]:
        out = []
        for name, one in (self._phases or {}).items():
            names = [f"`{name}_{at}`" for at in range(len(one.parts))]
            out.append(F.expr(one.total.format(*names)).alias(name))
        return out

    def _typed(self, rows: DataFrame, direct: DataFrame) -> DataFrame:
        """A sum of sums may have a wider type than the sum."""
        return rows.select(*(F.col(f"`{field.name}`").cast(field.dataType).alias(field.name) for field in direct.schema.fields))


def _merged(parts: DataFrame, by: Sequence[str], totals: Sequence[Column]) -> DataFrame:
    """Sessions of parts of the rows as sessions of all: those that touch are one."""
    earlier = Window.partitionBy(*by).orderBy("window_start", "window_end")
    reached = F.max("window_end").over(earlier.rowsBetween(Window.unboundedPreceding, -1))
    begins = F.coalesce(F.col("window_start") > reached, F.lit(True)).cast("int")
    islands = parts.withColumn("_headrace_begins", begins).withColumn("_headrace_island", F.sum("_headrace_begins").over(earlier))
    ends = [F.min("window_start").alias("window_start"), F.max("window_end").alias("window_end")]
    return islands.groupBy(*by, "_headrace_island").agg(*ends, *totals)
