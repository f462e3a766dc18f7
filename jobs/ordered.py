"""Ordered processing: a Python function sees each key's records in the order they were put, with state, exactly once in effect.

    from jobs import ordered

    def visits(key, record, state):                       # state: a dict, all None at the key's first record
        state["visits"] = (state["visits"] or 0) + 1
        yield {"tailnum": key, "visits": state["visits"]}

    ordered.apply(spark, config, "silver.visits", visits)

The source is the bronze table: its commits are gated, without voids and repeats, and never put a child's record before a
parent's. A micro-batch here is whole commits, sorted by the order token inside; each key's last token lies in its state, and a
record that does not come after it stops the job (docs/adr/0020-ordered-processing-reads-bronze.md).
"""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from py4j.protocol import Py4JJavaError
from pyspark.errors import ParseException, PySparkException
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql import types as T
from pyspark.sql.streaming.query import StreamingQuery

from jobs import crash, tables
from jobs.checkpoint import Owner, SparkCheckpoint
from jobs.commits import FORMAT, newest_commit_of_ours
from jobs.maintenance.source import check_source
from jobs.mode import Mode, parse_mode
from jobs.ordered_calls import OUT, Caller, Function, failed_call, load_function
from jobs.progress import OnProgress, TableProgress
from jobs.supervise import supervise
from jobs.tables import META, REJECTED, RESERVED
from jobs.writers import Writer
from pipeline.config import Config
from pipeline.config.ordered import Ordered
from pipeline.errors import ConfigError, HeadraceError, TableError

log = logging.getLogger("headrace.jobs")

_CHECK = "spark.sql.streaming.unsupportedOperationCheck"
_SETTING = threading.Lock()

ALL_FILES = (1 << 31) - 1
"""Of a trigger: with fewer, Delta's stream may end a micro-batch between two files of one commit."""


def apply(
    spark: SparkSession,
    config: Config,
    table: str,
    function: Function | None = None,
    mode: str = "available-now",
    stop: threading.Event | None = None,
    on_progress: OnProgress | None = None,
) -> None:
    """Call ``function(key, record, state)`` for every record of the table's bronze source and append what it yields; blocking.

    Per key in the order of the order token, across micro-batches, restarts and reshards; in effect once: state and output
    move together, and a call that is made again after a crash gets the same record and the same state. So the function has to
    depend on nothing else. It yields (or returns) dicts of the columns in ``ordered.output``, or None; ``state`` is a dict of
    the columns in ``ordered.state``, which it changes in place. ``record`` is the bronze row as a dict: the value's columns,
    ``_deleted``, and ``_meta``. Keys are handled side by side on executors, one record of a key at a time.

    ``function`` defaults to the one named in headrace.yml. Raises ConfigError, TableError, and HandlerError where the function
    failed: then nothing of its micro-batch is in the table, and the next start goes on with it.
    """
    job = OrderedJob(spark, config, table, on_progress, function)
    try:
        supervise(job, parse_mode(mode), stop or threading.Event())
    finally:
        job.close()


class OrderedJob:
    """The query of one ordered table; see jobs.supervise.Job."""

    def __init__(
        self,
        spark: SparkSession,
        config: Config,
        table: str,
        on_progress: OnProgress | None = None,
        function: Function | None = None,
    ) -> None:
        self.table = config.table(table)
        self.name = table
        self.failure: HeadraceError | None = None
        self.stopping = threading.Event()
        self.wants_restart = threading.Event()
        self._spark = spark
        self._on_progress = on_progress
        ordered = _checked(config, table)
        self._function = function or load_function(table, ordered.function)
        self._state, self._output = (_columns(table, name, getattr(ordered, name)) for name in ("state", "output"))
        source = config.table(self.table.sources[0])
        self._source_path = tables.table_path(config, source.name)
        self._path = tables.table_path(config, table)
        bronze = tables.find(spark, config, source, source.sources[0])
        if bronze is None:
            raise TableError(f"{table} is made from {source.name}, which is not there: run `headrace run {source.name}` first")
        identity = tables.create(spark, config, self.table, source.name, self._rows(_no_calls(spark, self._output)).schema)
        _check_same_columns(table, self._output, tables.load(spark, config, table).schema)
        self._checkpoint = SparkCheckpoint(spark, tables.checkpoint_path(config, table))
        if self._checkpoint.query_id() is None and newest_commit_of_ours(spark, self._path) is not None:
            raise TableError(
                f"the Spark checkpoint {self._checkpoint.path} is gone, and with it the state of every key of {table}: restore "
                f"it from a backup, or move {self._path} away and all of {source.name} is handled anew"
            )
        self._checkpoint.claim(Owner(table, identity.id, f"{source.name} ({bronze.id})"))
        self._writer = Writer(spark, table, self._checkpoint.path)
        self._micro_batches = self._written = 0
        self._version = -1

    def start(self, mode: Mode) -> StreamingQuery:
        """Start the query over the bronze table."""
        self.failure = None
        self._writer.take()
        # Commits that delete or update rows are retention's; ``check_source`` sees to it that they are nobody else's.
        stream = self._spark.readStream.format("delta").option("skipChangeCommits", "true")
        bronze = stream.option("maxFilesPerTrigger", str(ALL_FILES)).load(self._source_path)
        with _sorting_allowed(self._spark):
            return self._started(self._called(bronze), mode)

    def _started(self, called: DataFrame, mode: Mode) -> StreamingQuery:
        return (
            called.writeStream.queryName(self.name)
            .option("checkpointLocation", self._checkpoint.path)
            .outputMode("append")
            .foreachBatch(self._guarded)
            .trigger(**mode.trigger())
            .start()
        )

    def has_more(self) -> bool:
        return False

    def close(self) -> None:
        """Nothing is held."""

    def _called(self, bronze: DataFrame) -> DataFrame:
        """The function's output. Rows come to it sorted: Spark asks for them grouped by key, which a sort by key and order
        token gives already, so it adds no sort of its own."""
        record = F.struct(*(F.col(name) for name in bronze.columns if name != REJECTED))
        good = bronze.where(F.col(f"{REJECTED}.reason").isNull() & F.col(f"{META}.key").isNotNull())
        keyed = good.select(F.col(f"{META}.key").alias("key"), F.col(f"{META}.order").alias("order"), record.alias("record"))
        in_order = keyed.repartition("key").sortWithinPartitions("key", "order")
        call = Caller(self._function, self._state, self._output.fieldNames())
        columns = T.StructType([*self._output.fields, *OUT.fields])
        return in_order.groupBy("key").transformWithState(call, columns, "append", "None")

    def _rows(self, called: DataFrame) -> DataFrame:
        order = F.struct(*(F.col(f"_{name}").alias(name) for name in ("generation", "offset", "index")))
        meta = F.struct(F.col("_key").alias("key"), order.alias("order"), F.col("_number").alias("number"))
        return called.select(*self._output.fieldNames(), meta.alias(META))

    def _guarded(self, called: DataFrame, micro_batch: int) -> None:
        if self.stopping.is_set():
            raise InterruptedError("stopping between micro-batches")
        try:
            self._process(called, micro_batch)
        except HeadraceError as error:
            self.failure = error
            raise
        except (PySparkException, Py4JJavaError) as error:
            self.failure = failed_call(self.name, str(error))
            raise

    def _process(self, called: DataFrame, micro_batch: int) -> None:
        query = self._checkpoint.query_id() or ""
        check_source(self._spark, self._checkpoint, self._source_path, self.name, micro_batch)
        if self._is_done(query, micro_batch):
            # The rows are in the table, the states of their keys may not be: they are made by calling the function again.
            called.write.format("noop").mode("overwrite").save()
        else:
            self._writer.check()
            crash.reach("silver.before_write")
            crash.reach_when_written("silver.before_commit", self._path)
            (
                self._rows(called)
                .write.format("delta")
                .mode("append")
                .option("txnAppId", f"{self.name}:{query}")
                .option("txnVersion", str(micro_batch))
                .option("userMetadata", json.dumps({"headrace": FORMAT, "query": query, "micro_batch": micro_batch}))
                .save(self._path)
            )
            crash.reach("silver.after_commit")
        self._micro_batches += 1
        self._report()

    def _is_done(self, query: str, micro_batch: int) -> bool:
        """Whether the table has this micro-batch: the last one, planned again after a crash before Spark noted it."""
        commit = newest_commit_of_ours(self._spark, self._path, after=max(-1, self._version - 1))
        if commit is None or commit.metadata is None:
            return False
        if commit.metadata["query"] != query or commit.metadata["micro_batch"] > micro_batch:
            raise TableError(
                f"the Spark checkpoint {self._checkpoint.path} is not the one that filled {self.name}, or is older: restore it "
                f"from a backup, or move both away and the source is handled anew"
            )
        return bool(commit.metadata["micro_batch"] == micro_batch)

    def _report(self) -> None:
        self._version = tables.version(self._spark, self._path, self._version)
        self._written += tables.rows_merged(self._spark, self._path, self._version)
        if self._on_progress is not None:
            self._on_progress(
                TableProgress(self.name, micro_batches=self._micro_batches, version=self._version, records=self._written)
            )


@contextmanager
def _sorting_allowed(spark: SparkSession) -> Iterator[None]:
    """Within, a query with a sort can be started. Spark refuses sorts in streams, since a micro-batch cannot order a stream;
    here the order between micro-batches is the source's, and the sort is for inside one."""
    with _SETTING:
        before = spark.conf.get(_CHECK)
        spark.conf.set(_CHECK, "false")
        try:
            yield
        finally:
            spark.conf.set(_CHECK, str(before))


def _checked(config: Config, table: str) -> Ordered:
    ordered = config.table(table).ordered
    if ordered is None:
        raise ConfigError(f"tables.{table}: an ordered table needs ordered: {{state: …, output: …}}")
    return ordered


def _columns(table: str, name: str, text: str) -> T.StructType:
    expected = ConfigError(f"tables.{table}.ordered.{name}: expected columns such as `visits long, last string`")
    try:
        found = T.StructType.fromDDL(text)
    except ParseException as error:
        raise expected from error
    if not isinstance(found, T.StructType):
        raise expected
    if taken := sorted(one for one in found.fieldNames() if one in RESERVED or one.startswith("_")):
        raise ConfigError(f"tables.{table}.ordered.{name}: {', '.join(taken)} is a name of ours: begin it with a letter")
    return T.StructType([T.StructField(field.name, field.dataType, True) for field in found.fields])


def _check_same_columns(table: str, output: T.StructType, stored: T.StructType) -> None:
    wanted = {field.name: field.dataType for field in output.fields}
    there = {field.name: field.dataType for field in stored.fields if field.name != META}
    if wanted != there:
        raise ConfigError(
            f"tables.{table}.ordered.output: the table has {stored.simpleString()}; other columns make it another table: give it "
            "another name, and the source is handled anew"
        )


def _no_calls(spark: SparkSession, output: T.StructType) -> DataFrame:
    return spark.createDataFrame([], T.StructType([*output.fields, *OUT.fields]))
