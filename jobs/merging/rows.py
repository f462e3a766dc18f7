"""Bronze rows as records of a silver table, with those that cannot be merged told apart."""

from __future__ import annotations

from pyspark.errors import AnalysisException, ParseException
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from jobs.merging.plan import MergePlan
from jobs.tables import DELETED, META, REJECTED, RESERVED
from pipeline.errors import ConfigError

_META_KEPT = ("key", "order", "topic", "partition", "producer", "seq", "timestamp", "produced_at")
NO_KEY, NO_SEQUENCE = "key", "sequence"
"""Reasons of dead letters."""


def accepted(bronze: DataFrame) -> DataFrame:
    """Bronze without its own dead letters."""
    return bronze.where(F.col(f"{REJECTED}.reason").isNull())


def records(bronze: DataFrame, plan: MergePlan) -> DataFrame:
    """The value's columns, ``_meta``, ``_deleted`` and ``_rejected``, which is null: nothing was rejected yet.

    Raises ConfigError where ``delete_when`` does not fit the columns.
    """
    own = [name for name in bronze.columns if name not in RESERVED]
    columns = [_key_of_tombstones(bronze, name) if name == plan.record_key else F.col(name) for name in own]
    meta = F.struct(*(F.col(f"{META}.{name}").alias(name) for name in _META_KEPT))
    rows = bronze.select(*columns, meta.alias(META), F.col(DELETED))
    return rows.select(
        *(F.col(name) for name in rows.columns if name != DELETED),
        _is_deleted(rows, plan).alias(DELETED),
        rejection(F.lit(None).cast("string"), F.lit(None).cast("string")).alias(REJECTED),
    )


def checked(rows: DataFrame, plan: MergePlan) -> DataFrame:
    """The same, after those without a key, or without what orders them, became dead letters. ``_deleted`` hides a dead letter
    from everybody who does not ask for it."""
    keys = [F.col(name).isNull() for name in plan.keys]
    no_key = keys[0]
    for one in keys[1:]:
        no_key = no_key | one
    missing = F.concat_ws(", ", *(F.when(one, F.lit(name)) for name, one in zip(plan.keys, keys, strict=True)))
    reason = F.when(no_key, F.lit(NO_KEY))
    detail = F.when(no_key, F.concat(F.lit("the record has no value in "), missing))
    if plan.merge.sequence_by is not None:
        no_sequence = F.col(plan.merge.sequence_by).isNull()
        reason = reason.when(no_sequence, F.lit(NO_SEQUENCE))
        detail = detail.when(no_sequence, F.lit(f"the record has no value in {plan.merge.sequence_by}, which orders the table"))
    before = F.col(f"{REJECTED}.reason")
    kept = F.when(before.isNotNull(), F.col(REJECTED)).otherwise(rejection(reason, detail))
    rows = rows.withColumn(REJECTED, kept)
    return rows.withColumn(DELETED, F.col(DELETED) | F.col(REJECTED).isNotNull())


def rejection(reason: Column, detail: Column) -> Column:
    """The ``_rejected`` of a record: null where ``reason`` is. ``record`` names the bronze row, so that a record that is merged
    again is the same dead letter."""
    order = f"{META}.order"
    record = F.concat_ws("/", f"{META}.topic", f"{META}.partition", f"{order}.generation", f"{order}.offset", f"{order}.index")
    return F.when(reason.isNotNull(), F.struct(reason.alias("reason"), detail.alias("detail"), record.alias("record")))


def token(side: str, plan: MergePlan) -> Column:
    """What decides which of two records of a key is newer. No two records have the same, so arrival does not matter."""
    fields = [F.col(f"{side}{META}.{name}").alias(name) for name in plan.token]
    if plan.merge.sequence_by is not None:
        fields.insert(0, F.col(f"{side}{plan.merge.sequence_by}").alias("sequence"))
    return F.struct(*fields)


def _key_of_tombstones(bronze: DataFrame, name: str) -> Column:
    """A tombstone has no value: its key is the record's."""
    kind = bronze.schema[name].dataType
    return F.coalesce(F.col(name), F.when(F.col(DELETED), F.col(f"{META}.key").try_cast(kind))).alias(name)


def _is_deleted(rows: DataFrame, plan: MergePlan) -> Column:
    condition = plan.merge.delete_when
    if condition is None:
        return F.col(DELETED)
    deletes = F.coalesce(F.expr(condition).cast("boolean"), F.lit(False))
    try:
        rows.select(deletes)
    except (AnalysisException, ParseException) as error:
        first = next((line for line in str(error).splitlines() if line.strip()), "")
        raise ConfigError(f"tables.{plan.table}.merge.delete_when: {condition!r} does not fit the columns: {first}") from error
    return F.col(DELETED) | deletes
