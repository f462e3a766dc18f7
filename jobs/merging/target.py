"""The silver table as a MERGE meets it: what of it is read, and the one statement that writes a micro-batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import reduce
from typing import Any

from delta.tables import DeltaTable
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F

from jobs.merging.current import ROWS, Newest, Updates
from jobs.merging.history import History
from jobs.merging.plan import MergePlan
from jobs.merging.pruning import KEYS_MAX, key_ranges
from jobs.tables import REJECTED

Fold = Newest | Updates | History
_USER_METADATA = "spark.databricks.delta.commitInfo.userMetadata"
_MARKS_ROWS = "spark.databricks.delta.merge.deletionVectors.persistent"


def fold_of(plan: MergePlan) -> Fold:
    """How the records of a key become its rows."""
    if plan.has_history:
        return History(plan)
    return Updates(plan) if plan.merge.ignore_null_updates else Newest(plan)


@dataclass(frozen=True, slots=True)
class Arrived:
    """A micro-batch, looked at once. ``ranges`` hold its keys: column → disjoint (low, high)."""

    rows: int = 0
    records: int = 0
    rejected: int = 0
    ranges: dict[str, list[tuple[Any, Any]]] = field(default_factory=dict)


def look(rows: DataFrame, prunable: Sequence[str], *, cut: bool) -> Arrived:
    """Count rows, and find where their keys lie; ``cut`` asks for several ranges of the first key, for another Spark job."""
    is_dead = F.col(REJECTED).isNotNull()
    good = [F.when(~is_dead, F.col(key)) for key in prunable]
    found = rows.agg(
        F.count(F.lit(1)),
        F.coalesce(F.sum(F.when(~is_dead, F.col(ROWS))), F.lit(0)),
        F.count_if(is_dead),
        *(bound(key) for key in good for bound in (F.min, F.max)),
    ).collect()[0]
    bounds = list(found[3:])
    ranges = {key: [(bounds[2 * n], bounds[2 * n + 1])] for n, key in enumerate(prunable) if bounds[2 * n] is not None}
    if cut and prunable and prunable[0] in ranges and found[0] <= KEYS_MAX:
        keys = rows.where(~is_dead).select(prunable[0]).distinct().collect()
        ranges[prunable[0]] = key_ranges([row[0] for row in keys])
    return Arrived(int(found[0]), int(found[1]), int(found[2]), ranges)


def within(side: str, arrived: Arrived) -> Column:
    """Files whose statistics deny it are not read."""
    if not arrived.records:
        return F.lit(False)
    conditions = [
        reduce(lambda a, b: a | b, (F.col(f"{side}{key}").between(F.lit(low), F.lit(high)) for low, high in ranges))
        for key, ranges in arrived.ranges.items()
    ]
    return reduce(lambda a, b: a & b, conditions, F.lit(True))


def rows_there(spark: SparkSession, path: str, rows: DataFrame, plan: MergePlan, arrived: Arrived) -> DataFrame:
    """What the table holds of the keys that arrived."""
    stored = spark.read.format("delta").load(path).where(within("", arrived) & F.col(REJECTED).isNull())
    return stored.join(rows.select(*plan.keys).distinct(), plan.keys, "left_semi")


def merge(
    spark: SparkSession,
    path: str,
    rows: DataFrame,
    plan: MergePlan,
    fold: Fold,
    arrived: Arrived,
    metadata: str,
    *,
    marks_rows: bool,
) -> None:
    """Write a micro-batch in one commit; merged again, it changes nothing. With ``marks_rows`` a changed row is marked in its
    file (by a deletion vector), else its file is written anew."""
    spark.conf.set(_USER_METADATA, metadata)
    spark.conf.set(_MARKS_ROWS, marks_rows)
    keys = [(F.col(f"t.{name}"), F.col(f"s.{name}")) for name in plan.keys]
    t_record, s_record = F.col(f"t.{REJECTED}.record"), F.col(f"s.{REJECTED}.record")
    if arrived.rejected:  # dead letters are found by their record; a part of their key may be null
        same = reduce(lambda a, b: a & b, (t.eqNullSafe(s) for t, s in keys), t_record.eqNullSafe(s_record))
        same = same & (within("t.", arrived) | F.col(f"t.{REJECTED}.reason").isNotNull())
    else:
        same = reduce(lambda a, b: a & b, (t == s for t, s in keys), t_record.isNull()) & within("t.", arrived)
    target = DeltaTable.forPath(spark, path).alias("t").merge(rows.alias("s"), same & fold.same()).withSchemaEvolution()
    try:
        target.whenMatchedUpdateAll(fold.changed()).whenNotMatchedInsertAll().execute()
    finally:
        spark.conf.unset(_USER_METADATA)
