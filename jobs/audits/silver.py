"""Silver against bronze replayed: the newest row of each key, by a window over all of bronze, has to be the row that is there.

Nothing of the job's MERGE or its grouping is used: what is computed here is what ``merge:`` in headrace.yml means.
"""

from __future__ import annotations

from functools import reduce

from pyspark.sql import Column, DataFrame, SparkSession, Window
from pyspark.sql import functions as F

from jobs import tables
from jobs.audits.finding import Audit
from jobs.checkpoint import SparkCheckpoint
from jobs.tables import DELETED, META, REJECTED, RESERVED
from pipeline.config import Config, Merge
from pipeline.errors import ConfigError, TableError


def audit_silver(spark: SparkSession, config: Config, table: str) -> Audit:
    """Compare a silver table with its bronze table as of the version that it has merged."""
    configured = config.table(table)
    if configured.merge is None:
        raise ConfigError(f"tables.{table}: a silver table needs merge: {{keys: […]}}")
    source = configured.sources[0]
    version = _merged_version(spark, config, table)
    audit = Audit(table, f"{source}, version {version}, replayed")
    bronze = tables.load(spark, config, source, version)
    stored = tables.load(spark, config, table)
    stream = config.stream(config.table(source).sources[0])
    expected = _newest(bronze, configured.merge, stream.key)
    columns = [name for name in stored.columns if name not in RESERVED and name in expected.columns]
    audit.looked_at["keys"] = expected.count()
    _compare(audit, expected, stored, configured.merge.keys, columns)
    return audit


def _merged_version(spark: SparkSession, config: Config, table: str) -> int:
    """The newest version of bronze of which silver has merged everything."""
    checkpoint = SparkCheckpoint(spark, tables.checkpoint_path(config, table))
    done = checkpoint.ends(checkpoint.newest("commits"))
    if done is None:
        raise TableError(f"table {table} has merged nothing yet: run `headrace run {table}` first")
    if int(done["index"]) >= 0:
        raise TableError(f"{table} is inside a version of its source: `headrace run {table} --mode available-now` first")
    return int(done["reservoirVersion"]) - 1


def _newest(bronze: DataFrame, merge: Merge, record_key: str | None) -> DataFrame:
    rows = bronze.where(F.col(f"{REJECTED}.reason").isNull())
    deleted: Column = F.col(DELETED)
    if merge.delete_when:
        deleted = deleted | F.coalesce(F.expr(merge.delete_when).cast("boolean"), F.lit(False))
    rows = rows.withColumn(DELETED, deleted)
    if merge.keys == [record_key]:  # a tombstone carries its key beside the value
        own = F.coalesce(F.col(merge.keys[0]).cast("string"), F.col(f"{META}.key"))
        rows = rows.withColumn(merge.keys[0], own.cast(bronze.schema[merge.keys[0]].dataType))
    for key in merge.keys:
        rows = rows.where(F.col(key).isNotNull())
    ties = ["order"] if merge.sequence_by is None else ["producer", "seq", "order"]
    order = [*([merge.sequence_by] if merge.sequence_by else []), *(f"{META}.{name}" for name in ties)]
    newest_first = Window.partitionBy(*merge.keys).orderBy(*(F.col(name).desc() for name in order))
    return rows.withColumn("_place", F.row_number().over(newest_first)).where("_place = 1").drop("_place")


def _compare(audit: Audit, expected: DataFrame, stored: DataFrame, keys: list[str], columns: list[str]) -> None:
    left, right = expected.alias("e"), stored.alias("s")
    same = reduce(lambda a, b: a & b, (F.col(f"e.{key}") == F.col(f"s.{key}") for key in keys))
    shown = [F.coalesce(F.col(f"e.{key}"), F.col(f"s.{key}")).alias(key) for key in keys]
    both = left.join(right, same, "full_outer")
    here, there = F.col(f"e.{META}").isNotNull(), F.col(f"s.{META}").isNotNull()
    audit.add("keys of bronze that are not in the table", both.where(here & ~there).select(*shown), keys)
    audit.add("keys in the table that bronze does not have", both.where(~here & there).select(*shown), keys)
    gone = F.col(f"e.{DELETED}") != F.col(f"s.{DELETED}")
    audit.add("keys that are deleted on one side only", both.where(here & there & gone).select(*shown), keys)
    values = [~F.col(f"e.{name}").eqNullSafe(F.col(f"s.{name}")) for name in columns]
    differs = reduce(lambda a, b: a | b, values, F.lit(False)) & ~F.col(f"e.{DELETED}")
    audit.add("keys whose row is not the newest record's", both.where(here & there & ~gone & differs).select(*shown), keys)
    audit.add("keys with several rows", stored.groupBy(*keys).count().where("count > 1"), keys)
