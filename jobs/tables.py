"""Delta tables of headrace.yml: where they are, that they are ours, how they are made and read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from delta.tables import DeltaTable
from pyspark.errors import AnalysisException
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql import types as T

from jobs.commits import (
    RESTORED,
    BronzeState,
    Commit,
    newest_commit_of_ours,
    newest_version,
    read_checksum,
    read_commit,
    versions,
)
from jobs.storage import has_entries, names, remove
from pipeline.config import Config, TableConfig
from pipeline.errors import ConfigError, TableError
from pipeline.schema.table_columns import RESERVED_COLUMNS

META, REJECTED, DELETED = "_meta", "_rejected", "_deleted"
REDRIVEN = "redriven"  # in _meta, of tables that met redriven records
RESERVED = RESERVED_COLUMNS
TABLE_PROPERTY, SOURCE_PROPERTY = "headrace.table", "headrace.stream"
FEED_PROPERTY = "delta.enableChangeDataFeed"

# Positions live in the log of bronze, so it has to outlast any pause of a stream; a log file is small.
_COMMON_PROPERTIES = {"delta.logRetentionDuration": "interval 400 days"}


_MEASURED = (T.NumericType, T.StringType, T.DateType, T.TimestampType, T.TimestampNTZType)
"""Types that Delta keeps minimum and maximum of."""


def measurable(kind: T.DataType) -> bool:
    """Whether Delta keeps minimum and maximum of columns of this type."""
    return isinstance(kind, _MEASURED)


@dataclass(frozen=True, slots=True)
class Identity:
    """A Delta table as it is: ``id`` changes when it is deleted and made again; ``files`` and ``bytes`` are those of its newest
    version."""

    path: str
    id: str
    properties: Mapping[str, str]
    files: int
    bytes: int


def table_path(config: Config, table: str) -> str:
    """Where a table lies: ``<warehouse>/bronze/flights``."""
    return f"{config.warehouse.rstrip('/')}/{table.replace('.', '/')}"


def checkpoint_path(config: Config, table: str) -> str:
    """Where the Spark checkpoint of a table's query lies."""
    return f"{config.warehouse.rstrip('/')}/_checkpoints/{table.replace('.', '/')}"


def find(spark: SparkSession, config: Config, table: TableConfig, source: str) -> Identity | None:
    """The table, after checking that it is this one; None where there is nothing yet.

    Raises TableError where the path holds something else, or a table with another name or source.
    """
    path = table_path(config, table.name)
    if not has_entries(spark, path):
        return None
    newest = version(spark, path)
    if newest < 0 and _is_unborn(spark, path):
        return None
    if newest < 0 and not has_entries(spark, f"{path}/_delta_log"):
        raise TableError(f"{path} should hold table {table.name} but is no Delta table: move that away, or set another warehouse")
    identity = _identity(spark, path, table.name, newest)
    properties = identity.properties
    for key, expected in ((TABLE_PROPERTY, table.name), (SOURCE_PROPERTY, source)):
        if properties.get(key) != expected:
            raise TableError(
                f"{path} holds a Delta table whose {key} is {properties.get(key, 'not set')!r}, not {expected!r}: it is not "
                f"{table.name} of {config.path.name}. Move it away, or set another warehouse"
            )
    return identity


def _is_unborn(spark: SparkSession, path: str) -> bool:
    """Whether all that is there is a log without a version: what a process leaves that dies while it makes the table."""
    return names(spark, path) == ["_delta_log"] and not versions(spark, path)


def _identity(spark: SparkSession, path: str, table: str, newest: int) -> Identity:
    noted = read_checksum(spark, path, newest)
    if noted is not None:
        metadata = noted["metadata"]
        files, size = int(noted.get("numFiles", -1)), int(noted.get("tableSizeBytes", -1))
        return Identity(path, metadata["id"], metadata.get("configuration") or {}, files, size)
    try:
        detail = DeltaTable.forPath(spark, path).detail().select("id", "properties", "numFiles", "sizeInBytes").collect()[0]
    except AnalysisException as error:
        raise TableError(f"{path} should hold table {table} but Delta cannot read it: {_first_line(error)}") from error
    return Identity(path, detail["id"], dict(detail["properties"]), int(detail["numFiles"]), int(detail["sizeInBytes"]))


def create(
    spark: SparkSession,
    config: Config,
    table: TableConfig,
    source: str,
    schema: T.StructType,
    *,
    statistics: Iterable[str] = (),
    properties: dict[str, str] | None = None,
) -> Identity:
    """The table, made where it is not there yet. ``statistics`` are the columns that one filters by, besides cluster_by."""
    found = find(spark, config, table, source)
    if found is not None:
        return found
    for column in table.cluster_by:
        if column not in schema.fieldNames():
            there = ", ".join(schema.fieldNames())
            raise ConfigError(f"tables.{table.name}.cluster_by: there is no column {column!r}; there are: {there}")
    builder = DeltaTable.createIfNotExists(spark).location(table_path(config, table.name)).addColumns(schema)
    kinds = {field.name: field.dataType for field in schema.fields}
    wanted_statistics = dict.fromkeys([*statistics, *table.cluster_by])
    measured = ",".join(name for name in wanted_statistics if measurable(kinds.get(name, T.StringType())))
    wanted = _COMMON_PROPERTIES | {TABLE_PROPERTY: table.name, SOURCE_PROPERTY: source} | (properties or {})
    if measured:
        wanted["delta.dataSkippingStatsColumns"] = measured
    for key, value in wanted.items():
        builder = builder.property(key, value)
    if table.cluster_by:
        builder = builder.clusterBy(*table.cluster_by)
    if _is_unborn(spark, path := table_path(config, table.name)):  # Delta makes no table where something lies
        for name in names(spark, f"{path}/_delta_log"):
            remove(spark, f"{path}/_delta_log/{name}")
        remove(spark, f"{path}/_delta_log")
    builder.execute()
    made = find(spark, config, table, source)
    if made is None:
        raise TableError(f"{table_path(config, table.name)} was created and is gone: is something else writing to the warehouse?")
    return made


def read(spark: SparkSession, config: Config, table: str, *, rejected: bool = False) -> DataFrame:
    """A table's current rows, as a user means them.

    Bronze and silver: without rejected rows, or only those with ``rejected=True``. Silver: without deleted rows and without
    our own columns. Gold: as it is. Raises ConfigError for a table not in headrace.yml, TableError for one not made yet.
    """
    return visible(load(spark, config, table), config.table(table).layer, rejected=rejected)


def load(spark: SparkSession, config: Config, table: str, version: int | None = None) -> DataFrame:
    """A table's rows as stored, at a version or now. Raises TableError where it is not there."""
    configured = config.table(table)
    path = table_path(config, configured.name)
    if not has_entries(spark, f"{path}/_delta_log"):
        raise TableError(f"table {table} is not there yet ({path}): run `headrace run {table}` first")
    reader = spark.read.format("delta")
    if version is not None:
        reader = reader.option("versionAsOf", version)
    return reader.load(path)


def visible(rows: DataFrame, layer: str, *, rejected: bool = False) -> DataFrame:
    """What ``read`` shows of stored rows."""
    if layer == "bronze":
        is_rejected = F.col(f"{REJECTED}.reason").isNotNull()
        return rows.where(is_rejected) if rejected else rows.where(~is_rejected).drop(REJECTED)
    if layer == "silver":
        if DELETED not in rows.columns:  # made by a function (`ordered:`)
            return rows.drop(META)
        is_rejected = F.col(f"{REJECTED}.reason").isNotNull()
        return rows.where(is_rejected) if rejected else rows.where(~F.col(DELETED) & ~is_rejected).drop(META, DELETED, REJECTED)
    return rows


def bronze_state(spark: SparkSession, path: str, *, after: int | None = None) -> BronzeState | None:
    """The state that the newest micro-batch left in a bronze table, with exact totals; None before the first. ``after`` as in
    jobs.commits.newest_commit_of_ours."""
    commit = newest_commit_of_ours(spark, path, after=after)
    return None if commit is None else state_of(spark, path, commit)


def state_of(spark: SparkSession, path: str, commit: Commit) -> BronzeState:
    """The state that a commit of ours left, with exact totals."""
    assert commit.metadata is not None
    state = BronzeState.from_json(commit.metadata)
    if RESTORED in commit.metadata:
        return state  # the rows of its files are counted in the totals that it names
    if not state.partly or (commit.rejected == state.surveyed.rejected and not state.surveyed.foreign):
        return state.with_commit(commit)
    stored = spark.read.format("delta").option("versionAsOf", commit.version).load(path)
    place = log_place(stored)
    stored = stored.where(_within(place, state))
    ours = F.col(f"{META}.producer").isNotNull() | (place["offset"] != F.col(f"{META}.order.offset"))
    stamped = F.col(f"{REJECTED}.reason").isNull() & ours
    found = stored.agg(F.count_if(stamped), F.coalesce(F.sum(f"{REJECTED}.records"), F.lit(0))).collect()[0]
    return state.with_commit(commit, int(found[0]), int(found[1]))


def log_place(rows: DataFrame) -> dict[str, Column]:
    """Where a bronze row's record lies in the log: ``topic``, ``partition``, ``offset`` and ``index``. A redriven record has
    its first life's in ``_meta``."""
    own = {name: F.col(f"{META}.{name}") for name in ("topic", "partition", "order.offset", "order.index")}
    place = {name.rpartition(".")[2]: column for name, column in own.items()}
    if has_redriven(rows):
        place = {name: F.coalesce(F.col(f"{META}.{REDRIVEN}.{name}"), column) for name, column in place.items()}
    return place


def has_redriven(rows: DataFrame) -> bool:
    """Whether a redriven record ever came into the table that the bronze rows are of."""
    meta = rows.schema[META].dataType
    return isinstance(meta, T.StructType) and REDRIVEN in meta.fieldNames()


def _within(place: Mapping[str, Column], state: BronzeState) -> Column:
    """Rows of the state's own micro-batch."""
    offset, condition = place["offset"], F.lit(False)
    for topic, partitions in state.start.items():
        for partition, start in partitions.items():
            here = (place["topic"] == topic) & (place["partition"] == partition)
            condition = condition | (here & (offset >= start) & (offset < state.next[topic][partition]))
    return condition


def totals(spark: SparkSession, config: Config, table: str) -> dict[str, int]:
    """Exact totals of a bronze table since it was made: messages, bytes, records, repeats, voids, rejected, foreign."""
    state = bronze_state(spark, table_path(config, config.table(table).name))
    return (state.totals if state else BronzeState().totals).to_json()


def is_refreshed(table: TableConfig) -> bool:
    """Whether a table is computed anew as a whole: gold that does not follow its sources step by step."""
    follows = any(getattr(table, name, None) is not None for name in ("window", "join"))
    return table.layer == "gold" and str(table.mode) != "incremental" and not follows


def version(spark: SparkSession, path: str, known: int = -1) -> int:
    """The newest version of a Delta table; -1 where there is none. ``known`` as in jobs.commits.newest_version."""
    return newest_version(spark, path, known)


def rows_merged(spark: SparkSession, path: str, at: int) -> int:
    """Rows that a MERGE (or an append) at a version inserted or updated."""
    commit = read_commit(spark, path, at)
    metrics = commit.metrics if commit else {}
    if "numTargetRowsInserted" in metrics:
        return int(metrics["numTargetRowsInserted"]) + int(metrics.get("numTargetRowsUpdated", 0))
    return int(metrics.get("numOutputRows", 0))


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
