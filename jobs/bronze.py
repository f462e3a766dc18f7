"""Bronze: a stream's records as they came, decoded, with their positions; rejected ones beside them (DESIGN.md §6).

    spark-submit … jobs/bronze.py --config headrace.yml [--table bronze.flights] [--mode continuous|available-now|10s]

One micro-batch: fetch once and keep → read the control log to its end → survey the stamps → decide (jobs/survey.py) → decode
in the JVM (jobs/decode.py) → one Delta commit with rows, rejected rows, and the state after it. Nothing that decides lives
only in memory: a micro-batch that is tried again starts from the state in the newest commit and so decides the same.
"""

from __future__ import annotations

import itertools
import logging
import random
import threading
import time
from contextlib import suppress

from pyspark import StorageLevel
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql.streaming.query import StreamingQuery

from jobs import assignment, claimed, crash, decode, evolution, redriven, survey, tables
from jobs.arguments import run_layer
from jobs.checkpoint import Owner, SparkCheckpoint
from jobs.commits import BronzeState, Places
from jobs.kafka_options import kafka_options
from jobs.log_ahead import LogAhead
from jobs.mode import Mode
from jobs.progress import OnProgress, TableProgress
from jobs.quality.checked import Checked
from jobs.schemas import Decided, StreamSchemas
from jobs.supervise import checkpoint_replaced
from jobs.timetravel.fence import check_not_fenced
from jobs.writers import Writer
from pipeline.config import Config
from pipeline.errors import (
    ConfigError,
    HeadraceError,
    InvariantError,
    RegistryUnavailableError,
    RetryableError,
    StreamConflictError,
    TableError,
)
from pipeline.kafka.offsets import bounds
from pipeline.model.repeats import Marks
from pipeline.model.shards import Place, ShardMap
from pipeline.reshard.control_log import ControlLog
from pipeline.reshard.resharder import Finisher

log = logging.getLogger("headrace.jobs")

STATISTICS = ("_meta.partition", "_meta.order.offset", "_meta.produced_at", "_meta.ingested_at", "_rejected.reason")
MICRO_BATCH_BYTES = 256 * 1024 * 1024  # of Kafka values: kept in memory or spilled while it is surveyed and decoded
FILE_BYTES = 16 * 1024 * 1024  # of Kafka values: a small micro-batch makes one file, not one for each partition
GENERATE_BYTES = 1024 * 1024  # of Kafka values: for fewer, generating code takes longer than interpreting
OFFSETS_MIN, OFFSETS_MAX = 1_000, 250_000
OFFSETS_FIRST_PACKED, OFFSETS_FIRST_PLAIN = 2_000, 100_000  # before the table knows how large its messages are
OUTCOME_WAIT_S = 60.0


class BronzeJob:
    """The query of one bronze table. ``start`` may be called again after its query ended. One thread at a time, besides
    Spark's own that runs the micro-batches."""

    def __init__(self, spark: SparkSession, config: Config, table: str, on_progress: OnProgress | None = None) -> None:
        self.table = config.table(table)
        if len(self.table.sources) != 1:
            raise ConfigError(f"tables.{table}.from: a bronze table is made from one stream, not {len(self.table.sources)}")
        self.name = table
        self.failure: HeadraceError | None = None
        self.stopping = threading.Event()
        self.wants_restart = threading.Event()
        self._spark = spark
        self._config = config
        self._stream = config.stream(self.table.sources[0])
        self._on_progress = on_progress
        self._path = tables.table_path(config, table)
        self._checkpoint = SparkCheckpoint(spark, tables.checkpoint_path(config, table))
        self._schemas = StreamSchemas(config.connection, self._stream)
        self._control = ControlLog(config.connection, self._stream)
        self._finish_pending = Finisher(config.connection)
        self._state = BronzeState()
        self._version = -1
        self._query: str | None = None  # the Spark checkpoint's, since the last start
        self._assigned: set[Place] = set()
        self._log_start: dict[Place, int] = {}
        self._columns = evolution.TableColumns(spark, table, self._path)
        self._writer = Writer(spark, table, self._checkpoint.path)
        self._log_ahead = LogAhead(spark, self._path)
        self._decoder_of: tuple[object, decode.Decoder] | None = None
        self._micro_batches = 0
        self.identity = ensure_table(spark, config, table, self._schemas, self._control.map)
        crash.reach("bronze.table_made")
        self._checkpoint.claim(Owner(table, self.identity.id, self._stream.name))
        self._there_at_first = self._control.map.places
        self._is_bounded = False
        self._checked = Checked(spark, config, table)

    # -- starting ----------------------------------------------------------------------------------------------------

    def start(self, mode: Mode) -> StreamingQuery:
        """Start the query over every partition that may be read now. Raises StopErrors where what is there does not fit."""
        self.failure = None
        self.wants_restart.clear()
        self._is_bounded = mode.is_bounded
        self._writer.take()
        self._state = self._checked_state()
        self._query = self._checkpoint.query_id()
        self._columns.load()
        processed = assignment.positions(self._state.next)
        planned = self._checkpoint.kafka_ends(self._checkpoint.newest("offsets")) or {}
        shard_map = self._control.barrier()
        found = bounds(self._config.connection, shard_map.places | set(processed))
        assignment.check_bounds(self.name, processed, found)
        self._log_start = {place: first for place, (first, _) in found.items()}
        self._assigned = assignment.places_to_read(assignment.positions(planned), processed, shard_map, self._log_start)
        crash.reach("bronze.before_start")
        messages = (
            self._spark.readStream.format("kafka")
            .options(**kafka_options(self._config.connection))
            .option("assign", assignment.assign_option(self._assigned))
            .option("startingOffsets", assignment.starting_option(self._assigned, processed))
            .option("includeHeaders", "true")
            .option("failOnDataLoss", "true")
            .option("maxOffsetsPerTrigger", str(self._offsets_max()))
            .load()
        )
        return (
            messages.writeStream.queryName(self.name)
            .option("checkpointLocation", self._checkpoint.path)
            .foreachBatch(self._guarded)
            .trigger(**mode.trigger())
            .start()
        )

    def has_more(self) -> bool:
        """Whether partitions became readable that the last query did not have: a reshard's children."""
        return bool(self._newly_readable(self._control.barrier()))

    def close(self) -> None:
        self._checked.close()
        self._log_ahead.close()
        self._control.close()

    def _checked_state(self) -> BronzeState:
        """The table's state, after checking that Spark checkpoint, table and topics belong together."""
        self._control.check_topic_ids()
        self._version = tables.version(self._spark, self._path)
        state = tables.bronze_state(self._spark, self._path) or BronzeState()
        for topic, known in state.topic_ids.items():
            if (now := self._control.map.topic_ids.get(topic)) not in (None, known):
                raise StreamConflictError(
                    f"{self.name} was filled from another topic {topic} than the one there is now (id {known}, now {now}): it "
                    "was deleted and created again. Make the table anew under another name"
                )
        query = self._checkpoint.query_id()
        # Another query may have started anew from the table's positions, and have died before its first commit.
        if query is not None and state.query not in ("", query) and self._checkpoint.newest("commits") >= 0:
            raise TableError(
                f"the Spark checkpoint {self._checkpoint.path} is of another query than the one that filled {self.name}: move "
                "it away; the next start makes a new one from the positions in the table"
            )
        return state

    def _offsets_max(self) -> int:
        totals = self._state.totals
        if totals.messages < OFFSETS_MIN:
            return OFFSETS_FIRST_PACKED if self._stream.aggregation else OFFSETS_FIRST_PLAIN
        return max(OFFSETS_MIN, min(OFFSETS_MAX, MICRO_BATCH_BYTES * totals.messages // max(1, totals.bytes)))

    # -- one micro-batch ---------------------------------------------------------------------------------------------

    def _guarded(self, messages: DataFrame, micro_batch: int) -> None:
        """Errors cross the JVM as text only; the supervisor wants them as they were."""
        if self.stopping.is_set():
            raise InterruptedError("stopping between micro-batches")
        try:
            self._process(messages, micro_batch)
        except HeadraceError as error:
            self.failure = error
            raise

    def _process(self, messages: DataFrame, micro_batch: int) -> None:
        crash.reach("bronze.planned")
        query = self._same_query()
        ends = self._checkpoint.kafka_ends(micro_batch)
        if ends is None:
            raise TableError(f"the Spark checkpoint {self._checkpoint.path} has no offsets of micro-batch {micro_batch}")
        if self._is_done(query, micro_batch, ends):
            return
        self._check_continues(self._checkpoint.kafka_starts(micro_batch))
        self._log_ahead.begin()
        raw = decode.raw_columns(messages)
        if len(self._assigned) > 4 * (cores := self._spark.sparkContext.defaultParallelism):
            raw = raw.coalesce(2 * cores)  # else every partition makes a file of its own in every commit
        raw = raw.persist(StorageLevel.MEMORY_AND_DISK)
        try:
            plan, shard_map = self._decide(raw)
            with claimed.resolved(raw, plan, self._stream) as (whole, plan):
                state = self._state_after(query, micro_batch, ends, plan, shard_map)
                crash.reach("bronze.before_write")
                self._write(whole, plan, shard_map, state)
                crash.reach("bronze.after_commit")
        finally:
            raw.unpersist()
        self._committed(query, micro_batch)
        if not self._is_bounded:  # else this may have been the last one
            self._log_ahead.begin()
        if self._newly_readable(shard_map):
            self.wants_restart.set()

    def _same_query(self) -> str:
        """The query's id, as long as nobody put another Spark checkpoint under it."""
        query = self._checkpoint.query_id() or ""
        if self._query not in (None, query):
            raise checkpoint_replaced(self.name)
        self._query = query
        return query

    def _is_done(self, query: str, micro_batch: int, ends: Places) -> bool:
        """Whether the table has this micro-batch already: the last one, planned again after a crash before Spark noted it.

        Delta would skip the write in silence (txnVersion); so would it for an older Spark checkpoint that plans *other*
        offsets under a number that was used, and those records would be lost.
        """
        state = self._state
        if state.query != query or micro_batch > state.micro_batch:
            return False
        same = all(state.next.get(t, {}).get(p) == at for t, ps in ends.items() for p, at in ps.items())
        if micro_batch == state.micro_batch and same:
            log.info("%s: micro-batch %d is in the table already", self.name, micro_batch)
            return True
        raise TableError(
            f"the Spark checkpoint {self._checkpoint.path} is older than {self.name} (it plans micro-batch {micro_batch}, the "
            f"table has {state.micro_batch}): move it away; the next start makes a new one from the positions in the table"
        )

    def _check_continues(self, starts: Places | None) -> None:
        for topic, partitions in (starts or {}).items():
            for partition, start in partitions.items():
                known = self._state.next.get(topic, {}).get(partition)
                if known is not None and known != start:
                    raise TableError(
                        f"{self.name} has {topic}/{partition} up to offset {known}, its Spark checkpoint goes on at {start}: "
                        f"they do not belong together. Move {self._checkpoint.path} away; the next start makes a new one"
                    )

    def _decide(self, raw: DataFrame) -> tuple[survey.Plan, ShardMap]:
        """The plan, made with a control log that is read to its end after the micro-batch's offsets were fixed: every seal
        below them is known, or its reshard is pending and is waited for."""
        seen = [survey.Seen(*row) for row in decode.survey_columns(raw).collect()]
        marks = Marks.from_json(self._state.marks)
        accept_foreign = self._stream.foreign == "accept" or self._stream.ordering != "strict"
        deadline = time.monotonic() + OUTCOME_WAIT_S
        for attempt in itertools.count():
            shard_map = self._control.barrier()
            if attempt:  # the resharder had its time: whoever meets a pending reshard finishes it
                self._finish_pending(self._control)
                shard_map = self._control.barrier()
            plan = survey.plan(seen, shard_map, marks, accept_foreign=accept_foreign)
            if not plan.undecided:
                return plan, shard_map
            if self.stopping.wait(random.uniform(0.25, 0.5)) or time.monotonic() > deadline:
                raise RetryableError(
                    f"{self.name} waits for the outcome of a reshard of {', '.join(sorted(plan.undecided))}: run `headrace "
                    f"stream describe {self._stream.name}` to see it, and the same split or merge again to finish it"
                )
        raise AssertionError("unreachable")

    def _state_after(
        self, query: str, micro_batch: int, ends: Places, plan: survey.Plan, shard_map: ShardMap
    ) -> BronzeState:
        before = assignment.positions(self._state.next)
        now = assignment.positions(ends)
        start = {place: before.get(place, self._log_start.get(place, 0)) for place in now}
        return BronzeState(
            query=query,
            micro_batch=micro_batch,
            start=assignment.nested(start),
            next=assignment.nested(before | now),
            marks=plan.marks.to_json(),
            topic_ids=dict(shard_map.topic_ids),
            surveyed=plan.counts,
            stamped=plan.stamped,
            partly=plan.partly + plan.redriven,
            before=self._state.totals,
        )

    def _write(self, raw: DataFrame, plan: survey.Plan, shard_map: ShardMap, state: BronzeState) -> None:
        decided = self._schemas.decide(plan.schema_ids, self._columns.problem)
        rows = self._decoder(decided, shard_map).rows(raw, plan)
        if plan.redriven:
            rows = redriven.taken_in(rows, self._spark.read.format("delta").load(self._path), shard_map)
        rows, grows = self._columns.follow(rows)
        with self._checked.before(rows, state.micro_batch, state.query) as checked:
            self._append(checked, plan, state, grows)
        if grows:
            self._columns.load()

    def _decoder(self, decided: Decided, shard_map: ShardMap) -> decode.Decoder:
        key = (decided, dict(shard_map.shards))
        if self._decoder_of is None or self._decoder_of[0] != key:
            self._decoder_of = key, decode.Decoder(decided.writers, decided.bad, decided.reader, shard_map)
        return self._decoder_of[1]

    def _append(self, rows: DataFrame, plan: survey.Plan, state: BronzeState, grows: bool) -> None:
        files = 1 + plan.counts.bytes // FILE_BYTES
        writer = (
            (rows.coalesce(files) if files < len(self._assigned) else rows)
            .write.format("delta")
            .mode("append")
            .option("txnAppId", f"{self.name}:{state.query}")
            .option("txnVersion", str(state.micro_batch))
            .option("userMetadata", state.to_json())
        )
        if grows:
            writer = writer.option("mergeSchema", "true")
        _plan_quickly(rows.sparkSession, plan.counts.bytes)
        crash.reach_when_written("bronze.before_commit", self._path)
        self._writer.check()
        writer.save(self._path)

    def _committed(self, query: str, micro_batch: int) -> None:
        """The state from now on is what the log says, not what we meant to write."""
        state = tables.bronze_state(self._spark, self._path, after=self._version)
        if state is None or (state.query, state.micro_batch) != (query, micro_batch):
            check_not_fenced(self._spark, self._path, self.name, query)
            raise InvariantError(f"{self.name}: micro-batch {micro_batch} was written, and the newest commit is not its own")
        self._state = state
        self._version = tables.version(self._spark, self._path, self._version)
        self._micro_batches += 1
        totals = state.totals
        if self._on_progress is not None:
            self._on_progress(
                TableProgress(
                    self.name,
                    micro_batches=self._micro_batches,
                    version=self._version,
                    records=totals.records,
                    repeats=totals.repeats,
                    voids=totals.voids,
                    rejected=totals.rejected,
                    messages=totals.messages,
                    bytes=totals.bytes,
                )
            )

    def _newly_readable(self, shard_map: ShardMap) -> set[Place]:
        """In available-now only those of reshards that were there when the job was made. Children of later ones wait for the
        next run, or this one would go on for as long as somebody reshards."""
        processed = assignment.positions(self._state.next)
        found = assignment.places_to_read((), processed, shard_map, self._log_start) - self._assigned
        return found & self._there_at_first if self._is_bounded else found


def _plan_quickly(session: SparkSession, value_bytes: int) -> None:
    """Settings of the query's own session for an append. Where the state of Delta's log was not computed ahead, the write
    computes it: few rows through large generated code, in three jobs where execution is adaptive. Nothing else in an append is
    shuffled, and only for many rows is it worth to generate what is outside of Spark's own stages."""
    session.conf.set("spark.sql.adaptive.enabled", "false")
    session.conf.set("spark.sql.codegen.factoryMode", "NO_CODEGEN" if value_bytes < GENERATE_BYTES else "FALLBACK")


def ensure_table(
    spark: SparkSession, config: Config, table: str, schemas: StreamSchemas, shard_map: ShardMap
) -> tables.Identity:
    """The bronze table, made with the columns of the stream's schema where it is not there yet."""
    configured = config.table(table)
    found = tables.find(spark, config, configured, configured.sources[0])
    if found is not None:
        return found
    with suppress(RegistryUnavailableError):  # then it begins with the stream's own file, and grows
        schemas.load()  # the columns of a new table are made of every version, in their order
    reader, _ = schemas.reader()
    columns = decode.empty(spark, reader.tree, shard_map).schema
    return tables.create(spark, config, configured, configured.sources[0], columns, statistics=STATISTICS)


def main(arguments: list[str] | None = None) -> int:
    return run_layer("bronze", arguments)


if __name__ == "__main__":
    raise SystemExit(main())
