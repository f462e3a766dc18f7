"""What a silver table has to hold, computed from all of bronze at once, in order.

Nothing of the job's folds, its sights or its MERGE is used: what is computed here is what ``merge:`` and ``dedup:`` of
headrace.yml mean.
"""

from __future__ import annotations

from functools import reduce

from pyspark.sql import Column, DataFrame, Window, WindowSpec
from pyspark.sql import functions as F

from jobs.tables import DELETED, META, REJECTED, RESERVED
from pipeline.config import Merge, StreamConfig

RECORD = "_record"
"""A column that ``replayed`` adds: which record a row is, as topic/partition/generation/offset/index."""


def replayed(bronze: DataFrame, merge: Merge, stream: StreamConfig) -> tuple[DataFrame, DataFrame]:
    """The rows that the table has to hold (hidden ones too), and bronze's records that have to be dead letters."""
    records = _records(_firsts(bronze.where(F.col(f"{REJECTED}.reason").isNull()), stream), merge, stream.key)
    usable = reduce(lambda a, b: a & b, (F.col(name).isNotNull() for name in _required(merge)))
    dead, rows = records.where(~usable), records.where(usable)
    if merge.ignore_null_updates:
        rows = _filled(rows, merge)
    by_time = _of_key(merge).orderBy(*(F.col(name).asc() for name in _order(merge)))
    if merge.scd == 1:
        newest = F.row_number().over(_of_key(merge).orderBy(*(F.col(name).desc() for name in _order(merge))))
        return rows.withColumn("_place", newest).where("_place = 1").drop("_place"), dead
    since = F.col(merge.sequence_by) if merge.sequence_by else F.max(f"{META}.timestamp").over(_so_far(by_time))
    rows = rows.withColumn("valid_from", since)
    last = F.row_number().over(by_time) == F.count(F.lit(1)).over(_of_key(merge))
    return rows.withColumns({"valid_to": F.lead("valid_from").over(by_time), "is_current": last & ~F.col(DELETED)}), dead


def with_record(rows: DataFrame) -> DataFrame:
    """Rows with the column that names their record."""
    order = [f"{META}.order.{name}" for name in ("generation", "offset", "index")]
    return rows.withColumn(RECORD, F.concat_ws("/", f"{META}.topic", f"{META}.partition", *order))


def _required(merge: Merge) -> list[str]:
    return [*merge.keys, *([merge.sequence_by] if merge.sequence_by else [])]


def _of_key(merge: Merge) -> WindowSpec:
    return Window.partitionBy(*merge.keys)


def _so_far(window: WindowSpec) -> WindowSpec:
    return window.rowsBetween(Window.unboundedPreceding, Window.currentRow)


def _order(merge: Merge) -> list[str]:
    log = [f"{META}.order.{name}" for name in ("generation", "offset", "index")] + [f"{META}.topic", f"{META}.partition"]
    producer = [f"{META}.producer", f"{META}.seq"]
    return [*log, *producer] if merge.sequence_by is None else [merge.sequence_by, *producer, *log]


def _records(bronze: DataFrame, merge: Merge, record_key: str | None) -> DataFrame:
    rows = with_record(bronze)
    if merge.keys == [record_key]:  # a tombstone carries its key beside the value
        own = F.when(F.col(DELETED), F.col(f"{META}.key").try_cast(bronze.schema[merge.keys[0]].dataType))
        rows = rows.withColumn(merge.keys[0], F.coalesce(F.col(merge.keys[0]), own))
    if merge.delete_when:
        rows = rows.withColumn(DELETED, F.col(DELETED) | F.coalesce(F.expr(merge.delete_when).cast("boolean"), F.lit(False)))
    return rows


def _filled(rows: DataFrame, merge: Merge) -> DataFrame:
    """Nulls of updates replaced by what was there before, back to the newest delete."""
    by_time = _of_key(merge).orderBy(*_order(merge))
    rows = rows.withColumn("_deletes", F.sum(F.col(DELETED).cast("int")).over(_so_far(by_time)))
    life = _so_far(Window.partitionBy(*merge.keys, "_deletes").orderBy(*_order(merge)))
    kept = (*_required(merge), RECORD, *RESERVED, "_deletes")
    values = [name for name in rows.columns if name not in kept]
    own = {name: F.when(~F.col(DELETED), F.col(name)) for name in values}
    return rows.withColumns({name: F.last(value, ignorenulls=True).over(life) for name, value in own.items()}).drop("_deletes")


def _firsts(rows: DataFrame, stream: StreamConfig) -> DataFrame:
    """Without the repeats of explicit ids, in the order of the log."""
    if stream.dedup == "off":
        return rows
    has_id = F.col(f"{META}.id").isNotNull()
    without_id, rows = rows.where(~has_id), rows.where(has_id)
    order = [F.col(f"{META}.{name}") for name in ("order", "topic", "partition")]
    of_id = Window.partitionBy(f"{META}.id", f"{META}.key").orderBy(*order)
    rows = rows.withColumn("_place", F.row_number().over(of_id))
    if stream.dedup_window_ms is None:
        return rows.where("_place = 1").drop("_place").unionByName(without_id)
    # Counted from the first sight: whether a record is one depends on those before it, so they are gone through one by one.
    whole = of_id.rowsBetween(Window.unboundedPreceding, Window.unboundedFollowing)
    rows = rows.withColumn("_at", F.unix_millis(F.col(f"{META}.timestamp")))
    rows = rows.withColumn("_all", F.collect_list(F.struct("_place", "_at")).over(whole))
    firsts = rows.where(F.array_contains(_first_places(stream.dedup_window_ms), F.col("_place")))
    return firsts.drop("_place", "_at", "_all").unionByName(without_id)


def _first_places(window_ms: int) -> Column:
    start = F.struct(F.array().cast("array<int>").alias("places"), F.array().cast("array<bigint>").alias("times"))

    def step(done: Column, one: Column) -> Column:
        is_first = ~F.exists(done["times"], lambda at: one["_at"] - at < window_ms)
        added = F.struct(
            F.concat(done["places"], F.array(one["_place"])).alias("places"),
            F.concat(done["times"], F.array(one["_at"])).alias("times"),
        )
        return F.when(is_first, added).otherwise(done)

    return F.aggregate("_all", start, step, lambda done: done["places"])
