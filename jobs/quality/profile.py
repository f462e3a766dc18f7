"""headrace quality profile TABLE: what is in a table, in two passes over it.

The first gives counts, nulls, distinct values and top values (both estimated by sketches; exact for few values), minimum,
maximum and quantiles of every column; the second counts the histograms.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql import types as T

from jobs import tables
from jobs.expressions import quoted
from jobs.quality import command
from jobs.quality.picture import bars, svg
from pipeline.cli.output import plain, print_table, say
from pipeline.config import Config
from pipeline.errors import ConfigError

TOP = 20
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
BUCKETS = 20
_ATOMIC = (T.NumericType, T.StringType, T.BooleanType, T.DateType, T.TimestampType, T.TimestampNTZType)
_TIMES = (T.DateType, T.TimestampType, T.TimestampNTZType)


@dataclass(frozen=True, slots=True)
class ColumnProfile:
    """``distinct`` is an estimate. ``top`` are (value, count), most frequent first; ``buckets`` are counts of equal parts between
    minimum and maximum (numbers and times only). Times in quantiles are not given."""

    name: str
    type: str
    rows: int
    nulls: int
    distinct: int | None = None
    minimum: Any = None
    maximum: Any = None
    quantiles: Mapping[str, float] | None = None
    top: Sequence[tuple[Any, int]] = ()
    buckets: Sequence[int] = ()

    @property
    def has_all_values(self) -> bool:
        """Whether ``top`` names every value there is."""
        return 0 < len(self.top) < TOP and sum(count for _, count in self.top) == self.rows - self.nulls


def profile(rows: DataFrame) -> list[ColumnProfile]:
    """Of every column, in their order; structs, arrays and maps with counts only."""
    fields = rows.schema.fields
    wanted = [F.count(F.lit(1)).alias("rows")]
    for number, field in enumerate(fields):
        wanted += [column.alias(f"{what}_{number}") for what, column in _aggregates(field).items()]
    found = rows.agg(*wanted).collect()[0].asDict(recursive=True)
    profiles = [_of(field, number, found) for number, field in enumerate(fields)]
    return _with_buckets(rows, profiles)


def _aggregates(field: T.StructField) -> dict[str, Column]:
    column, kind = F.col(quoted(field.name)), field.dataType
    out = {"count": F.count(column)}
    if isinstance(kind, _ATOMIC):
        out |= {"distinct": F.approx_count_distinct(column), "min": F.min(column), "max": F.max(column)}
        out["top"] = F.expr(f"approx_top_k({quoted(field.name)}, {TOP})")
    if isinstance(kind, T.NumericType):
        out["quantiles"] = F.percentile_approx(column.cast("double"), list(QUANTILES))
    return out


def _of(field: T.StructField, number: int, found: Mapping[str, Any]) -> ColumnProfile:
    rows = int(found["rows"])
    quantiles = found.get(f"quantiles_{number}")
    return ColumnProfile(
        name=field.name,
        type=field.dataType.simpleString(),
        rows=rows,
        nulls=rows - int(found[f"count_{number}"]),
        distinct=found.get(f"distinct_{number}"),
        minimum=found.get(f"min_{number}"),
        maximum=found.get(f"max_{number}"),
        quantiles={f"{part:g}": value for part, value in zip(QUANTILES, quantiles, strict=True)} if quantiles else None,
        top=[(one["item"], one["count"]) for one in found.get(f"top_{number}") or () if one["item"] is not None],
    )


def _with_buckets(rows: DataFrame, profiles: list[ColumnProfile]) -> list[ColumnProfile]:
    ranges = {number: found for number, one in enumerate(profiles) if (found := _range(rows.schema[one.name], one)) is not None}
    if not ranges:
        return profiles
    places = [
        F.struct(F.lit(number).alias("column"), _bucket(_number(rows.schema[profiles[number].name]), low, high).alias("bucket"))
        for number, (low, high) in ranges.items()
    ]
    each = rows.select(F.explode(F.array(*places)).alias("one")).where("one.bucket IS NOT NULL")
    counts: dict[int, list[int]] = {number: [0] * BUCKETS for number in ranges}
    for number, bucket, count in each.groupBy("one.column", "one.bucket").count().collect():
        counts[number][bucket] = count
    return [replace(one, buckets=counts[number]) if number in counts else one for number, one in enumerate(profiles)]


def _range(field: T.StructField, one: ColumnProfile) -> tuple[float, float] | None:
    if one.minimum is None or not isinstance(field.dataType, (T.NumericType, *_TIMES)):
        return None
    low, high = (_as_number(value) for value in (one.minimum, one.maximum))
    return (low, high) if math.isfinite(low) and math.isfinite(high) and low < high else None


def _as_number(value: Any) -> float:
    if hasattr(value, "timestamp"):
        return float(value.timestamp())
    return float(value.toordinal()) if hasattr(value, "toordinal") else float(value)


def _number(field: T.StructField) -> Column:
    column = F.col(quoted(field.name))
    if isinstance(field.dataType, T.DateType):
        return F.datediff(column, F.lit("1970-01-01").cast("date")).cast("double") + F.lit(719_163.0)  # as Python's ordinals
    if isinstance(field.dataType, T.TimestampType | T.TimestampNTZType):
        return F.unix_micros(column.cast("timestamp")) / F.lit(1e6)
    return column.cast("double")


def _bucket(number: Column, low: float, high: float) -> Column:
    part = F.floor((number - F.lit(low)) / F.lit((high - low) / BUCKETS)).cast("int")
    return F.when(number.isNotNull() & ~F.isnan(number), F.greatest(F.least(part, F.lit(BUCKETS - 1)), F.lit(0)))


def show(found: Sequence[Mapping[str, Any]]) -> None:
    """A table with a row for each column."""
    columns = ("column", "type", "rows", "nulls", "distinct", "minimum", "median", "maximum", "histogram", "top values")
    lines = []
    for one in found:
        top = ", ".join(f"{value} ({count:,})" for value, count in list(one["top"])[:5])
        median = (one["quantiles"] or {}).get("0.5")
        lines.append(
            (one["name"], one["type"][:40], one["rows"], one["nulls"], one["distinct"], _short(one["minimum"]), _short(median),
             _short(one["maximum"]), bars(one["buckets"]), top)
        )  # fmt: skip
    print_table("Profile", columns, lines)


def _short(value: Any) -> str | None:
    return None if value is None else f"{value:.6g}" if isinstance(value, float) else str(value)[:30]


def main(arguments: list[str] | None = None) -> int:
    made = command.parser("profile", "What is in a table.")
    made.add_argument("table")
    made.add_argument("--svg", type=Path, default=None)

    def work(spark: SparkSession, config: Config, options: argparse.Namespace) -> Any:
        found = profile(tables.read(spark, config, options.table))
        if options.svg is not None:
            try:
                options.svg.write_text(svg(options.table, found), encoding="utf-8")
            except OSError as error:
                raise ConfigError(f"--svg {options.svg} cannot be written: {error.strerror}") from error
            if not options.json:
                say(f"The histograms are in {options.svg}.")
        return [plain(asdict(one)) for one in found]

    return command.run(made, arguments, work, show)


if __name__ == "__main__":
    import sys

    raise SystemExit(main(sys.argv[1:]))
