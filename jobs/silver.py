"""Silver: one row per key, the newest (DESIGN.md §6).

    spark-submit … jobs/silver.py --config headrace.yml [--table silver.flights] [--mode continuous|available-now|10s]

Bronze is read as a stream of appended rows. Each micro-batch is reduced to the newest row per key and merged where it is
newer than the row that is there, so any arrival order gives the same table. A deleted row stays as a tombstone: a late
insert does not bring it back. A micro-batch that is merged twice changes nothing the second time: idempotent by nature, so no
txnVersion is used (with one, Delta would skip *new* rows in silence under an older Spark checkpoint).
"""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Sequence

from delta.tables import DeltaTable
from pyspark import StorageLevel
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql import types as T
from pyspark.sql.streaming.query import StreamingQuery

from jobs import crash, tables
from jobs.arguments import run_layer
from jobs.checkpoint import Owner, SparkCheckpoint
from jobs.commits import FORMAT
from jobs.evolution import TableColumns
from jobs.mode import Mode
from jobs.progress import OnProgress, TableProgress
from jobs.tables import DELETED, META, REJECTED, RESERVED
from pipeline.config import Config, Merge
from pipeline.errors import ConfigError, HeadraceError, TableError

log = logging.getLogger("headrace.jobs")

_META_KEPT = ("key", "order", "producer", "seq", "timestamp", "produced_at")
_USER_METADATA = "spark.databricks.delta.commitInfo.userMetadata"
_ROWS = "_rows"


class SilverJob:
    """The query of one silver table; see jobs.supervise.Job."""

    def __init__(self, spark: SparkSession, config: Config, table: str, on_progress: OnProgress | None = None) -> None:
        self.table = config.table(table)
        self.name = table
        self.failure: HeadraceError | None = None
        self.stopping = threading.Event()
        self.wants_restart = threading.Event()
        self._spark = spark
        self._on_progress = on_progress
        self.merge, self._record_key = _checked(config, table)
        self._path = tables.table_path(config, table)
        source = config.table(self.table.sources[0])
        self._source_path = tables.table_path(config, source.name)
        bronze = tables.find(spark, config, source, source.sources[0])
        if bronze is None:
            raise TableError(f"{table} is made from {source.name}, which is not there: run `headrace run {source.name}` first")
        stored = spark.read.format("delta").load(self._source_path)
        _check_columns(table, self.merge, stored.columns)
        columns = self._rows(stored).schema
        identity = tables.create(
            spark, config, self.table, source.name, _without(columns, _ROWS), statistics=self.merge.keys
        )
        self._checkpoint = SparkCheckpoint(spark, tables.checkpoint_path(config, table))
        crash.reach("silver.table_made")
        self._checkpoint.claim(Owner(table, identity.id, f"{source.name} ({bronze.id})"))
        self._columns = TableColumns(spark, table, self._path)
        self._is_empty = identity.files == 0
        self._micro_batches = self._merged = 0

    def start(self, mode: Mode) -> StreamingQuery:
        """Start the query over the bronze table."""
        self.failure = None
        self._columns.load()
        crash.reach("silver.before_start")
        source = self._spark.readStream.format("delta").load(self._source_path)
        return (
            source.writeStream.queryName(self.name)
            .option("checkpointLocation", self._checkpoint.path)
            .foreachBatch(self._guarded)
            .trigger(**mode.trigger())
            .start()
        )

    def has_more(self) -> bool:
        return False

    def close(self) -> None:
        """Nothing is held."""

    def _guarded(self, rows: DataFrame, micro_batch: int) -> None:
        if self.stopping.is_set():
            raise InterruptedError("stopping between micro-batches")
        try:
            self._process(rows, micro_batch)
        except HeadraceError as error:
            self.failure = error
            raise

    def _process(self, rows: DataFrame, micro_batch: int) -> None:
        crash.reach("silver.planned")
        newest = self._rows(rows).persist(StorageLevel.MEMORY_AND_DISK)
        try:
            key = self.merge.keys[0]
            no_key = ~_has_keys(self.merge.keys)
            found = newest.agg(
                F.count_if(~no_key), F.coalesce(F.sum(F.when(no_key, F.col(_ROWS))), F.lit(0)), F.min(key), F.max(key)
            ).collect()[0]
            if found[1]:
                log.warning("%s: %d records without a key (%s) stay in bronze only", self.name, found[1], self.merge.keys)
            metadata = {"headrace": FORMAT, "micro_batch": micro_batch, "without_key": found[1]}
            if found[0]:
                self._write(newest.where(~no_key).drop(_ROWS), json.dumps(metadata), found[2], found[3])
        finally:
            newest.unpersist()
        self._micro_batches += 1
        self._report()

    def _rows(self, stored: DataFrame) -> DataFrame:
        """Bronze rows as silver rows, the newest of each key, with ``_rows``: how many there were of it."""
        merge = self.merge
        columns = [F.col(name) for name in stored.columns if name not in RESERVED]
        if self._record_key is not None:  # a tombstone has no value: its key is the record's
            kind = stored.schema[self._record_key].dataType
            whole = F.coalesce(F.col(self._record_key), F.col(f"{META}.key").try_cast(kind)).alias(self._record_key)
            columns = [whole if name == self._record_key else F.col(name) for name in stored.columns if name not in RESERVED]
        is_deleted = F.col(DELETED)
        if merge.delete_when:
            is_deleted = is_deleted | F.coalesce(F.expr(merge.delete_when).cast("boolean"), F.lit(False))
        meta = F.struct(*(F.col(f"{META}.{name}").alias(name) for name in _META_KEPT))
        rows = stored.where(F.col(f"{REJECTED}.reason").isNull()).select(*columns, meta.alias(META), is_deleted.alias(DELETED))
        whole_row = F.struct(*(F.col(name) for name in rows.columns))
        newest = rows.groupBy(*merge.keys).agg(
            F.max_by(whole_row, _token("", merge)).alias("newest"), F.count(F.lit(1)).alias(_ROWS)
        )
        return newest.select("newest.*", _ROWS)

    def _write(self, newest: DataFrame, metadata: str, low: object, high: object) -> None:
        newest, grows = self._columns.follow(newest)
        crash.reach("silver.before_write")
        crash.reach_when_written("silver.before_commit", self._path)
        self._write_columns(newest, metadata, low, high)
        crash.reach("silver.after_commit")
        if grows:
            self._columns.load()

    def _write_columns(self, newest: DataFrame, metadata: str, low: object, high: object) -> None:
        if self._is_empty:
            writer = newest.write.format("delta").mode("append").option("mergeSchema", "true")
            writer.option("userMetadata", metadata).save(self._path)
            self._is_empty = False
            return
        session, key = newest.sparkSession, self.merge.keys[0]
        session.conf.set(_USER_METADATA, metadata)
        same = F.lit(True)
        for name in self.merge.keys:
            same = same & (F.col(f"t.{name}") == F.col(f"s.{name}"))
        # Files whose keys are all outside the micro-batch's are not read.
        same = same & F.col(f"t.{key}").between(F.lit(low), F.lit(high))
        (
            DeltaTable.forPath(session, self._path)
            .alias("t")
            .merge(newest.alias("s"), same)
            .withSchemaEvolution()
            .whenMatchedUpdateAll(_token("s.", self.merge) > _token("t.", self.merge))
            .whenNotMatchedInsertAll()
            .execute()
        )

    def _report(self) -> None:
        version = tables.version(self._spark, self._path)
        self._merged += tables.rows_merged(self._spark, self._path, version)
        if self._on_progress is not None:
            self._on_progress(TableProgress(self.name, micro_batches=self._micro_batches, version=version, records=self._merged))


def _token(side: str, merge: Merge) -> Column:
    """What decides which of two rows of a key is newer. Ties of ``sequence_by`` go to (producer, seq), then to the order
    token, so that the winner never depends on arrival."""
    meta = f"{side}{META}"
    if merge.sequence_by is None:
        return F.col(f"{meta}.order")
    return F.struct(
        F.col(f"{side}{merge.sequence_by}").alias("sequence"),
        F.col(f"{meta}.producer").alias("producer"),
        F.col(f"{meta}.seq").alias("seq"),
        F.col(f"{meta}.order").alias("order"),
    )


def _has_keys(keys: Sequence[str]) -> Column:
    out = F.lit(True)
    for name in keys:
        out = out & F.col(name).isNotNull()
    return out


def _checked(config: Config, table: str) -> tuple[Merge, str | None]:
    """The merge settings, and the key column that a tombstone's record key stands for (None: it cannot)."""
    configured = config.table(table)
    if configured.merge is None:
        raise ConfigError(f"tables.{table}: a silver table needs merge: {{keys: […]}}")
    if configured.expect:
        raise ConfigError(f"tables.{table}.expect: expectations are not built yet: remove them")
    if len(configured.sources) != 1 or config.table(configured.sources[0]).layer != "bronze":
        raise ConfigError(f"tables.{table}.from: a silver table is made from one bronze table")
    stream = config.stream(config.table(configured.sources[0]).sources[0])
    if stream.ordering == "salted" and configured.merge.sequence_by is None:
        raise ConfigError(
            f"tables.{table}.merge.sequence_by: stream {stream.name} is salted, so the log does not order the records of a key: "
            "name a column that does"
        )
    keys = configured.merge.keys
    return configured.merge, stream.key if keys == [stream.key] else None


def _check_columns(table: str, merge: Merge, columns: Sequence[str]) -> None:
    there = [name for name in columns if name not in RESERVED]
    for column in [*merge.keys, *([merge.sequence_by] if merge.sequence_by else [])]:
        if column not in there:
            raise ConfigError(f"tables.{table}.merge: there is no column {column!r}; there are: {', '.join(there)}")


def _without(columns: T.StructType, name: str) -> T.StructType:
    return T.StructType([field for field in columns.fields if field.name != name])


def main(arguments: list[str] | None = None) -> int:
    return run_layer("silver", arguments)


if __name__ == "__main__":
    raise SystemExit(main())
