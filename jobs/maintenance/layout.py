"""A table's layout as headrace.yml wants it now: the columns it is clustered by, how long its log is kept, and statistics of
every file for the columns that queries filter by.

Changing a property makes writers that are under way fail; jobs then start their micro-batch again. So it is done only where
something differs.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from jobs.maintenance.statements import first_line, session, statement
from jobs.tables import Identity, measurable
from pipeline.config import TableConfig
from pipeline.errors import ConfigError, TableError

STATISTICS_PROPERTY = "delta.dataSkippingStatsColumns"
LOG_PROPERTY = "delta.logRetentionDuration"


def arrange(spark: SparkSession, table: TableConfig, identity: Identity, log_keep: timedelta) -> bool:
    """Clustering columns and properties as configured. Returns whether something was changed.

    Raises ConfigError for a column that is not there, TableError where Delta cannot cluster the table.
    """
    own = session(spark, {"step": "layout"})
    schema = own.read.format("delta").load(identity.path).schema
    for column in table.cluster_by:
        if column not in schema.fieldNames():
            there = ", ".join(schema.fieldNames())
            raise ConfigError(f"tables.{table.name}.cluster_by: there is no column {column!r}; there are: {there}")
    wanted = {LOG_PROPERTY: f"interval {log_keep // timedelta(hours=1)} hours"}
    measured = _measured(identity)
    more = [name for name in table.cluster_by if name not in measured and measurable(schema[name].dataType)]
    if more and measured:  # without the property Delta measures the first 32 columns
        wanted[STATISTICS_PROPERTY] = ",".join([*measured, *more])
    changed = {key: value for key, value in wanted.items() if not _same(identity.properties.get(key), value)}
    if changed:
        properties = ", ".join(f"'{key}' = '{value}'" for key, value in changed.items())
        statement(own, f"ALTER TABLE delta.`{identity.path}` SET TBLPROPERTIES ({properties})")
    return _cluster(own, table, identity.path) or bool(changed)


def complete_statistics(spark: SparkSession, identity: Identity) -> int:
    """Compute the statistics of files that lack them for a column of the property (top-level ones). Returns how many."""
    own = session(spark, {"step": "statistics"})
    jvm: Any = own._jvm
    log = jvm.org.apache.spark.sql.delta.DeltaLog.forTable(own._jsparkSession, identity.path)
    columns = [name for name in _measured(identity) if "." not in name]
    files = DataFrame(log.unsafeVolatileSnapshot().allFiles().toDF(), own)
    lacking = F.get_json_object("stats", "$.numRecords").isNull()
    for name in columns:
        lacking = lacking | F.get_json_object("stats", f"$.nullCount['{name}']").isNull()
    found = files.where(lacking).count()
    if found:
        collection = jvm.org.apache.spark.sql.delta.stats.StatisticsCollection
        everything = getattr(collection, "recompute$default$4")(), getattr(collection, "recompute$default$5")()
        collection.recompute(own._jsparkSession, log, jvm.scala.Option.empty(), *everything)
    return int(found)


def _measured(identity: Identity) -> list[str]:
    return [name for name in identity.properties.get(STATISTICS_PROPERTY, "").split(",") if name]


def _cluster(own: SparkSession, table: TableConfig, path: str) -> bool:
    now = list(own.sql(f"DESCRIBE DETAIL delta.`{path}`").collect()[0]["clusteringColumns"] or [])
    if table.cluster_by in ([], now):  # none configured: what the job chose by itself stays
        return False
    columns = ", ".join(f"`{name}`" for name in table.cluster_by)
    try:
        statement(own, f"ALTER TABLE delta.`{path}` CLUSTER BY ({columns})")
    except Exception as error:
        raise TableError(
            f"tables.{table.name}.cluster_by: {table.name} cannot be clustered by {columns}: {first_line(error)}. Make it anew "
            "under another name"
        ) from error
    return True


def _same(there: str | None, wanted: str) -> bool:
    """`interval 400 days` and `interval 9600 hours` are the same time."""
    return there == wanted or (there or "") == _in_days(wanted)


def _in_days(interval: str) -> str | None:
    parts = interval.split()
    if len(parts) != 3 or parts[0] != "interval" or int(parts[1]) % 24:
        return None
    return f"interval {int(parts[1]) // 24} days"
