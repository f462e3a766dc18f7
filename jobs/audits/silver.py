"""Silver against bronze replayed in order (jobs.audits.replay): the same rows, the same dead letters, nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce

from pyspark import StorageLevel
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F

from jobs import tables
from jobs.audits.finding import Audit
from jobs.audits.replay import RECORD, replayed, with_record
from jobs.checkpoint import SparkCheckpoint
from jobs.intake import Intake
from jobs.maintenance.retention import Retention
from jobs.merging.rows import NO_KEY, NO_SEQUENCE
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
    bronze = Intake(spark, config, table).reached(tables.load(spark, config, source, version))
    stored = with_record(tables.load(spark, config, table))
    expected, dead = replayed(bronze, configured.merge, config.stream(config.table(source).sources[0]))
    retention = Retention.load(spark, tables.table_path(config, source))
    deleted_below = max(retention.floors.values(), default=0) if retention else 0
    is_dead = F.col(f"{REJECTED}.reason").isNotNull()
    audit.looked_at["keys"] = expected.select(*configured.merge.keys).distinct().count()
    if configured.merge.scd == 2:
        audit.looked_at["records in the history of keys"] = expected.count()
    if (letters := dead.count()) > 0:
        audit.looked_at["dead letters"] = letters
    _compare(audit, expected, stored.where(~is_dead), configured.merge, deleted_below)
    _compare_dead(audit, dead, stored.where(is_dead & (F.col(f"{META}.order.offset") >= deleted_below)))
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


def _compare(audit: Audit, expected: DataFrame, stored: DataFrame, merge: Merge, deleted_below: int) -> None:
    """``scd: 1`` has one row a key, ``scd: 2`` one a record. Rows that bronze deleted by age had offsets below
    ``deleted_below``: a row made of one is as it was left."""
    identity = [*merge.keys, *([RECORD] if merge.scd == 2 else [])]
    what = "keys" if merge.scd == 1 else "records"
    own = (*RESERVED, RECORD)
    columns = [name for name in stored.columns if name not in own and name in expected.columns]
    if deleted_below and merge.ignore_null_updates:
        columns = []  # what filled them may have been deleted
    values = [~F.col(f"e.{name}").eqNullSafe(F.col(f"s.{name}")) for name in columns]
    both = expected.alias("e").join(stored.alias("s"), _same(identity), "full_outer")
    if deleted_below:
        order = F.col(f"s.{META}.order")
        is_old = (order.getField("offset") < deleted_below) & ~order.eqNullSafe(F.col(f"e.{META}.order"))
        old = F.coalesce(is_old, F.lit(False))
        audit.looked_at[f"{what} whose newest record was deleted from bronze by age"] = both.where(old).count()
        both = both.where(~old)
    compared = both.select(
        *(F.coalesce(F.col(f"e.{name}"), F.col(f"s.{name}")).alias(name) for name in identity),
        F.col(f"e.{META}").isNotNull().alias("_here"),
        F.col(f"s.{META}").isNotNull().alias("_there"),
        (F.col(f"e.{DELETED}") != F.col(f"s.{DELETED}")).alias("_gone"),
        (reduce(lambda a, b: a | b, values, F.lit(False)) & ~F.col(f"e.{DELETED}")).alias("_differs"),
    ).persist(StorageLevel.MEMORY_AND_DISK)
    wrong = "keys whose row is not the newest record's" if merge.scd == 1 else "records whose row, or its time, is not right"
    try:
        for problem, condition in (
            (f"{what} of bronze that are not in the table", "_here AND NOT _there"),
            (f"{what} in the table that bronze does not have", "_there AND NOT _here"),
            (f"{what} that are deleted on one side only", "_here AND _there AND _gone"),
            (wrong, "_here AND _there AND NOT _gone AND _differs"),
        ):
            audit.add(problem, compared.where(condition), identity)
    finally:
        compared.unpersist()
    audit.add(f"{what} with several rows", stored.groupBy(*identity).count().where("count > 1"), identity)


def _compare_dead(audit: Audit, expected: DataFrame, stored: DataFrame) -> None:
    """Dead letters that the table made of bronze's records, one each."""
    columns, same = [RECORD], _same([RECORD])
    missing = expected.alias("e").join(stored.alias("s"), same, "left_anti")
    audit.add("records that belong to the dead letters and are not there", missing, columns)
    several = stored.groupBy(RECORD).count().where("count > 1")
    audit.add("records that are a dead letter more than once", several, columns)
    wrongly = stored.alias("e").join(expected.alias("s"), same, "left_anti")
    audit.add("dead letters that should be rows", wrongly.where(F.col(f"{REJECTED}.reason").isin(NO_KEY, NO_SEQUENCE)), columns)


def _same(columns: Sequence[str]) -> Column:
    return reduce(lambda a, b: a & b, (F.col(f"e.{name}").eqNullSafe(F.col(f"s.{name}")) for name in columns))
