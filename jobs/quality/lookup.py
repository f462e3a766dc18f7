"""Row rules whose answer takes other rows (unique) or another table (references): each becomes one boolean column."""

from __future__ import annotations

from collections.abc import Callable

from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

from jobs.quality.compile import RowRule
from jobs.references import References
from jobs.rejects import position, same_position
from jobs.tables import DELETED, META
from pipeline.errors import ConfigError

Before = Callable[[], DataFrame]
"""The rows that arrived before, and possibly these rows too."""


def add_unique(rows: DataFrame, rule: RowRule, before: Before) -> DataFrame:
    """False for a row with the same values as one that was ingested up to so long before it. Which of two came first is their
    place in the log, so a replay gives the same answer. Nulls are no values."""
    assert rule.helper is not None
    low, high = rows.agg(F.min(f"{META}.ingested_at"), F.max(f"{META}.ingested_at")).collect()[0]
    window_s = rule.rule.seconds
    if low is None:
        return rows.withColumn(rule.helper, F.lit(True))
    ingested = F.col(f"{META}.ingested_at")
    since = F.lit(low) - F.make_interval(secs=F.lit(window_s))
    earlier = before().where((ingested >= since) & (ingested <= F.lit(high)) & ~F.col(DELETED))
    wanted = [F.col(name).alias(f"_key_{n}") for n, name in enumerate(rule.rule.column)]
    values = {f"_key_{n}": F.when(~F.col(DELETED), F.col(name)) for n, name in enumerate(rule.rule.column)}
    mine = rows.withColumns(values | {"_mine": F.lit(True)})
    others = earlier.select(META, *wanted).alias("o").join(rows.select(META).alias("r"), same_position("o.", "r."), "left_anti")
    both = mine.unionByName(others, allowMissingColumns=True)
    keys = [F.col(f"_key_{n}") for n in range(len(rule.rule.column))]
    same = Window.partitionBy(*keys).orderBy(*position())
    before_at = F.lag(f"{META}.ingested_at").over(same)
    age_s = (F.unix_micros(f"{META}.ingested_at") - F.unix_micros(before_at)) / F.lit(1e6)
    judged = both.withColumn(rule.helper, ~_all_there(keys) | F.coalesce(age_s > window_s, F.lit(True)))
    return judged.where("_mine").drop("_mine", *(f"_key_{n}" for n in range(len(keys))))


def add_reference(rows: DataFrame, rule: RowRule, references: References, where: str) -> DataFrame:
    """False for a row whose values are not in the other table. As in SQL, a null refers to nothing and is no failure."""
    assert rule.helper is not None
    name, columns = rule.rule.referenced
    theirs = references.rows(name, where)
    for column in columns:
        if column not in theirs.columns:
            raise ConfigError(f"{where}: {name} has no column {column!r}; there are: {', '.join(theirs.columns)}")
    keys = [f"_their_{n}" for n in range(len(columns))]
    known = theirs.select(*(F.col(column).alias(key) for column, key in zip(columns, keys, strict=True))).distinct()
    known = known.withColumn("_found", F.lit(True))
    same = F.lit(True)
    for ours, key in zip(rule.rule.column, keys, strict=True):
        same = same & (F.col(ours) == F.col(key))
    given = _all_there([F.col(ours) for ours in rule.rule.column])
    joined = rows.join(known, same, "left")
    return joined.withColumn(rule.helper, ~given | F.col("_found").isNotNull()).drop("_found", *keys)


def _all_there(columns: list[Column]) -> Column:
    out = F.lit(True)
    for column in columns:
        out = out & column.isNotNull()
    return out
