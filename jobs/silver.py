"""Silver: the rows that the records of each key come to (DESIGN.md §6).

    spark-submit … jobs/silver.py --config headrace.yml [--table silver.flights] [--mode continuous|available-now|10s]

Bronze is read as a stream of appended rows. The path of a micro-batch:

    bronze rows → steps and rules (jobs.intake) → repeats of ids left out → records → checked (dead letters told apart) →
        folded by key → one MERGE

Any order of arrival gives the same table: ``jobs.merging`` says how for each kind of fold. A deleted row stays as a hidden row,
so a late insert does not bring it back. A micro-batch that is merged twice changes nothing the second time: idempotent by
nature, so no txnVersion is used (with one, Delta would skip *new* rows in silence under an older Spark checkpoint).
"""

from __future__ import annotations

import json
import threading

from pyspark import StorageLevel
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import types as T
from pyspark.sql.streaming.query import StreamingQuery

from jobs import crash, tables
from jobs.arguments import run_layer
from jobs.checkpoint import Owner, SparkCheckpoint
from jobs.commits import FORMAT, newest_commit_of_ours, read_checksum
from jobs.conflicts import again_on_conflict
from jobs.evolution import TableColumns
from jobs.intake import Intake
from jobs.log_ahead import LogAhead
from jobs.maintenance.source import check_source
from jobs.maintenance.statements import turn
from jobs.merging import rows as silver_rows
from jobs.merging.current import ROWS
from jobs.merging.ids import Sights
from jobs.merging.plan import SETTINGS_PROPERTY, MergePlan
from jobs.merging.target import Arrived, fold_of, look, merge, rows_there
from jobs.mode import Mode
from jobs.progress import OnProgress, TableProgress
from jobs.tables import FEED_PROPERTY, REJECTED
from jobs.writers import Writer
from pipeline.config import Config
from pipeline.config.merge import HISTORY_COLUMNS
from pipeline.errors import HeadraceError, TableError

_FEW_FILES = 4
"""So few are read without asking where in them the keys lie."""
# A changed row is marked and written anew; without, its whole file is.
_PROPERTIES = {"delta.enableDeletionVectors": "true"}
_SMALL_BYTES = 64 * 1024
"""Of a table. To mark changed rows takes Spark jobs of their own, a third of a MERGE of one row, and writes files of about this
size itself; to write a much larger table anew each time would fill the disk until VACUUM."""


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
        self.plan = MergePlan.of(config, table)
        self._fold = fold_of(self.plan)
        self._path = tables.table_path(config, table)
        source = config.table(self.table.sources[0])
        self._source_path = tables.table_path(config, source.name)
        bronze = tables.find(spark, config, source, source.sources[0])
        if bronze is None:
            raise TableError(f"{table} is made from {source.name}, which is not there: run `headrace run {source.name}` first")
        self.intake = Intake(spark, config, table)
        identity = self._create(config, source.name)
        self._checkpoint = SparkCheckpoint(spark, tables.checkpoint_path(config, table))
        crash.reach("silver.table_made")
        self._checkpoint.claim(Owner(table, identity.id, f"{source.name} ({bronze.id})"))
        self._sights = Sights.open(spark, config, self.plan, identity)
        self._columns = TableColumns(spark, table, self._path)
        self._writer = Writer(spark, table, self._checkpoint.path)
        self._log_ahead = LogAhead(spark, self._path)
        self._is_bounded = False
        self._files, self._bytes = identity.files, identity.bytes
        self._query: str | None = None  # the Spark checkpoint's, since the last start
        self._source_version = self._version = -1
        self._micro_batches = self._merged = self._rejected = self._repeats = 0

    def _create(self, config: Config, source: str) -> tables.Identity:
        stored = self.intake.shape(self._spark.read.format("delta").load(self._source_path))
        self.plan.check_columns({field.name: field.dataType.simpleString() for field in stored.schema.fields})
        schema = self._fold.complete(self._fold.reduced(self._records(stored)).drop(ROWS), None).schema
        columns = {field.name: field.dataType.simpleString() for field in schema.fields}
        self._prunable = self.plan.prunable(columns)
        followed = {FEED_PROPERTY: "true"} if config.is_followed(self.name) else {}
        identity = tables.create(
            self._spark,
            config,
            self.table if self.table.cluster_by else self.table.model_copy(update={"cluster_by": self.plan.cluster_by(columns)}),
            source,
            _nullable(schema),
            statistics=[*self.plan.keys, f"{REJECTED}.reason", *(HISTORY_COLUMNS if self.plan.has_history else ())],
            properties=_PROPERTIES | {SETTINGS_PROPERTY: self.plan.settings()} | followed,
        )
        self.plan.check_settings(identity.properties.get(SETTINGS_PROPERTY))
        return identity

    def start(self, mode: Mode) -> StreamingQuery:
        """Start the query over the bronze table."""
        self.failure = None
        self._is_bounded = mode.is_bounded
        self._writer.take()
        self._query = self._checkpoint.query_id()
        self._columns.load()
        crash.reach("silver.before_start")
        # Commits that delete or update rows are retention's; ``check_source`` sees to it that they are nobody else's.
        source = self._spark.readStream.format("delta").option("skipChangeCommits", "true").load(self._source_path)
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
        self._log_ahead.close()
        self.intake.close()

    def redrive(self, rows: DataFrame) -> None:
        """Merge rows of bronze's shape that were held back before: their order token decides, as if they came late. How far the
        table is in its source stays as it was. On S3 a running job of the table stops, as for any other writer."""
        self._writer.take()
        self._columns.load()
        newest = newest_commit_of_ours(self._spark, self._path)
        self._source_version = int((newest.metadata or {}).get("source_version", -1)) if newest else -1
        self._take(rows, -1)

    def _guarded(self, rows: DataFrame, micro_batch: int) -> None:
        if self.stopping.is_set():
            raise InterruptedError("stopping between micro-batches")
        try:
            self._process(rows, micro_batch)
        except HeadraceError as error:
            self.failure = error
            raise

    def _process(self, bronze: DataFrame, micro_batch: int) -> None:
        crash.reach("silver.planned")
        self._query = self._checkpoint.still(self._query, self.name)
        self._source_version = check_source(self._spark, self._checkpoint, self._source_path, self.name, micro_batch)
        self._log_ahead.begin()
        with self.intake.taken(bronze, micro_batch, self._query) as taken:
            self._take(taken, micro_batch)
        if not self._is_bounded:  # else this may have been the last one
            self._log_ahead.begin()
        self._micro_batches += 1
        self._report()

    def _take(self, bronze: DataFrame, micro_batch: int) -> None:
        """Merge rows of bronze's shape."""
        accepted, repeats = silver_rows.accepted(bronze), 0
        if self._sights is not None:
            accepted, repeats = self._sights.first(accepted)
        reduced = self._fold.reduced(self._records(accepted)).persist(StorageLevel.MEMORY_AND_DISK)
        try:
            arrived = look(reduced, self._prunable, cut=self._files > _FEW_FILES)
            if arrived.rows:
                counts = {"records": arrived.records, "rejected": arrived.rejected, "repeats": repeats}
                about = {"headrace": FORMAT, "micro_batch": micro_batch, "source_version": self._source_version}
                metadata = json.dumps(about | counts)
                with turn(self._path):
                    again_on_conflict(lambda: self._write(reduced.drop(ROWS), arrived, metadata), self.name)
            if self._sights is not None:
                self._sights.done(bronze)
        finally:
            reduced.unpersist()
        self._rejected += arrived.rejected
        self._repeats += repeats

    def _records(self, bronze: DataFrame) -> DataFrame:
        """Bronze rows as the records that are merged; those that cannot be have a reason in ``_rejected``."""
        return silver_rows.checked(silver_rows.records(bronze, self.plan), self.plan)

    def _write(self, reduced: DataFrame, arrived: Arrived, metadata: str) -> None:
        _, grows = self._columns.follow(self._fold.complete(reduced, None))  # what the fold makes of them follows too
        reduced, _ = self._columns.follow(reduced)
        crash.reach("silver.before_write")
        crash.reach_when_written("silver.before_commit", self._path)
        self._writer.check()
        if self._files == 0:
            self._append(self._fold.complete(reduced, None), metadata)
        else:
            self._merge(reduced, arrived, metadata)
        crash.reach("silver.after_commit")
        if grows:
            self._columns.load()

    def _append(self, rows: DataFrame, metadata: str) -> None:
        """The first rows of a table. Whatever becomes of this, the next ones are merged."""
        self._files = 1
        writer = rows.write.format("delta").mode("append").option("mergeSchema", "true")
        writer.option("userMetadata", metadata).save(self._path)

    def _merge(self, reduced: DataFrame, arrived: Arrived, metadata: str) -> None:
        session = reduced.sparkSession
        there = rows_there(session, self._path, reduced, self.plan, arrived) if self._fold.needs_table else None
        complete = self._fold.complete(reduced, there)
        if there is not None:
            complete.persist(StorageLevel.MEMORY_AND_DISK)
        try:
            is_small = 0 <= self._bytes < _SMALL_BYTES
            merge(session, self._path, complete, self.plan, self._fold, arrived, metadata, marks_rows=not is_small)
        finally:
            complete.unpersist()

    def _report(self) -> None:
        self._version = tables.version(self._spark, self._path, self._version)
        self._merged += tables.rows_merged(self._spark, self._path, self._version)
        noted = read_checksum(self._spark, self._path, self._version)
        if noted is not None:
            self._files = max(self._files, int(noted.get("numFiles", 0)))
            self._bytes = int(noted.get("tableSizeBytes", -1))
        if self._on_progress is not None:
            self._on_progress(
                TableProgress(
                    self.name,
                    micro_batches=self._micro_batches,
                    version=self._version,
                    records=self._merged,
                    repeats=self._repeats,
                    rejected=self._rejected,
                )
            )


def _nullable(kind: T.StructType) -> T.StructType:
    """Everything in it may be null, at any depth: that an expression never is null is no promise of the table's."""
    fields = [
        T.StructField(one.name, _nullable(one.dataType) if isinstance(one.dataType, T.StructType) else one.dataType)
        for one in kind.fields
    ]
    return T.StructType(fields)


def main(arguments: list[str] | None = None) -> int:
    return run_layer("silver", arguments)


if __name__ == "__main__":
    raise SystemExit(main())
