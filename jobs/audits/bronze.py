"""Bronze against its topics: every offset below what the table has read is exactly once in rows, dead letters, or left out
as a void or a repeat whose records are there."""

from __future__ import annotations

from dataclasses import dataclass

from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.avro.functions import from_avro

from jobs import assignment, tables
from jobs.audits.finding import Audit, Finding
from jobs.audits.messages import POSITION, check_chains, read_messages
from jobs.maintenance.retention import Retention
from jobs.redriven import first_life, is_redrive
from jobs.tables import META, REJECTED
from pipeline.config import Config
from pipeline.errors import TableError
from pipeline.kafka.offsets import bounds
from pipeline.kafka.registry_client import RegistryClient, UnknownSchemaIdError
from pipeline.model.shards import ShardMap
from pipeline.model.stamp import REDRIVE_HEADER
from pipeline.reshard.control_log import ControlLog
from pipeline.schema.envelope import is_envelope


def audit_bronze(spark: SparkSession, config: Config, table: str) -> Audit:
    """Compare a bronze table with its stream's topics, from the first offset that they still have to the last that it read."""
    stream = config.stream(config.table(table).sources[0])
    state = tables.bronze_state(spark, tables.table_path(config, table))
    if state is None:
        raise TableError(f"table {table} holds nothing yet: run `headrace run {table}` first")
    with ControlLog(config.connection, stream) as control:
        control.check_topic_ids()
        shard_map = control.barrier()
    read_up_to = assignment.positions(state.next)
    in_kafka = {place: low for place, (low, _) in bounds(config.connection, read_up_to).items()}
    retention = Retention.load(spark, tables.table_path(config, table))
    floors = retention.floors if retention else {}
    kept = {place: max(low, floors.get(place, 0)) for place, low in in_kafka.items()}
    ranges = {place: (kept[place], end) for place, end in read_up_to.items() if kept[place] < end}
    audit = Audit(table, f"stream {stream.name}")
    trimmed = {place for place, low in kept.items() if low > 0}
    if trimmed:
        audit.looked_at["partitions whose beginning retention removed"] = len(trimmed)
    if not ranges:
        return audit
    messages = read_messages(spark, config.connection, shard_map, ranges).persist()
    deleted = {place: (in_kafka[place], low) for place, low in floors.items() if in_kafka.get(place, low) < low}
    older = read_messages(spark, config.connection, shard_map, deleted) if deleted else None
    repeats = _Repeats(config, older, lost_for_good=any(in_kafka.get(place, 0) > 0 for place in floors))
    stored = tables.load(spark, config, table).select(META, f"{REJECTED}.reason")
    try:
        _compare(audit, messages, _rows_by_message(spark, stored, ranges), stored, repeats)
        check_chains(audit, messages, trimmed)
        if not trimmed:
            _compare_totals(audit, messages, stored, state.totals.voids, state.totals.records)
    finally:
        messages.unpersist()
    _check_ids(audit, stored)
    return audit


def audit_log(spark: SparkSession, config: Config, stream: str) -> Audit:
    """A stream that no bronze table is made from: the producers' chains in its log alone."""
    settings = config.stream(stream)
    with ControlLog(config.connection, settings) as control:
        shard_map: ShardMap = control.barrier()
    ranges = {place: found for place, found in bounds(config.connection, shard_map.places).items() if found[0] < found[1]}
    audit = Audit(stream, "its own log (no bronze table is made from it)")
    if ranges:
        messages = read_messages(spark, config.connection, shard_map, ranges)
        check_chains(audit, messages, {place for place, (low, _) in ranges.items() if low > 0})
    return audit


def _rows_by_message(spark: SparkSession, stored: DataFrame, ranges: dict[tuple[str, int], tuple[int, int]]) -> DataFrame:
    """Per message: good rows, different indexes among them, rejected rows. Only of offsets that the topics still have."""
    limits = spark.createDataFrame([(*place, low) for place, (low, _) in ranges.items()], "topic string, partition int, low long")
    good = F.col("reason").isNull()
    place = tables.log_place(stored)
    rows = stored.select(*(column.alias(name) for name, column in place.items()), good.alias("good"))
    rows = rows.join(F.broadcast(limits), ["topic", "partition"]).where(F.col("offset") >= F.col("low"))
    return rows.groupBy(*POSITION).agg(
        F.count_if("good").alias("rows"),
        F.countDistinct(F.when(F.col("good"), F.col("index"))).alias("indexes"),
        F.count_if(~F.col("good")).alias("rejected"),
    )


def _compare(audit: Audit, messages: DataFrame, rows: DataFrame, stored: DataFrame, repeats: _Repeats) -> None:
    both = messages.join(rows, POSITION, "left").fillna(0, ["rows", "indexes", "rejected"]).persist()
    try:
        audit.looked_at["messages"] = both.count()
        audit.add(
            "messages in the table that the topic does not hold",
            rows.join(messages.select(*POSITION), POSITION, "left_anti"),
            POSITION,
        )
        left_out = F.col("is_end") | F.col("void")
        there = (F.col("rows") > 0) | (F.col("rejected") > 0)
        audit.add("void messages or END markers in the table", both.where(left_out & there), POSITION)
        judged = both.where(~left_out)
        twice = (F.col("indexes") < F.col("rows")) | (F.col("rejected") > 1) | (F.col("rows") > 0) & (F.col("rejected") > 0)
        more = F.col("has_stamp") & (F.col("rows") > F.col("count"))
        audit.add("messages that are in the table more than once", judged.where(twice | more), POSITION)
        unknown = ~F.col("has_stamp") | F.col("count").isNull()
        audit.add("messages without a stamp that are neither rows nor dead letters", judged.where(unknown & ~there), POSITION)
        short = judged.where(~unknown & (F.col("rejected") == 0) & (F.col("rows") < F.col("count")))
        audit.looked_at["messages left out, whole or in part, as repeats"] = short.count()
        if audit.looked_at["messages left out, whole or in part, as repeats"]:
            _check_repeats(audit, short, stored, repeats)
    finally:
        both.unpersist()


@dataclass(frozen=True, slots=True)
class _Repeats:
    """What is needed to judge repeats. ``older`` are messages of the log whose rows were deleted by age (None: there are none);
    ``lost_for_good``: some of those are in the log no more either, so that what repeats them cannot be told."""

    config: Config
    older: DataFrame | None
    lost_for_good: bool

    def unexplained(self, lost: DataFrame) -> DataFrame:
        """Records whose first copy is not among the deleted rows."""
        if self.older is None:
            return lost
        first = self.older.where(~F.col("void") & F.col("has_stamp")).select(
            F.col("producer").alias("first_producer"), F.col("first_seq").alias("low"), F.col("last_seq").alias("high")
        )
        same = (F.col("producer") == F.col("first_producer")) & F.col("seq").between(F.col("low"), F.col("high"))
        return lost.join(first, same, "left_anti")


def _check_repeats(audit: Audit, short: DataFrame, stored: DataFrame, repeats: _Repeats) -> None:
    """What a message lacks in the table was left out as repeats: then its records are there, by producer and sequence. Of
    redriven ones, those of their first lives count, or its place where there was no producer of ours."""
    registry = RegistryClient(repeats.config.connection)
    schema_id = F.conv(F.hex(F.substring("value", 2, 4)), 16, 10).cast("int")
    short = short.withColumn("schema_id", schema_id)
    good = stored.where(F.col("reason").isNull())
    there = good.select(f"{META}.producer", f"{META}.seq").distinct()
    places = good.select(*(F.col(f"{META}.{name}").alias(f"first_{name}") for name in ("topic", "partition")), f"{META}.order")
    columns = [*POSITION, "producer", "seq"]
    for (one,) in short.select("schema_id").distinct().collect():
        mine = short.where(F.col("schema_id").eqNullSafe(one))
        try:
            text = registry.schema_text(one) if one is not None else None
        except UnknownSchemaIdError:
            text = None
        if text is not None and is_envelope(text):
            entries = from_avro(F.expr("substring(value, 6)"), text, {"mode": "PERMISSIVE"})["records"]
            records = mine.select(*POSITION, "producer", "first_seq", F.explode_outer(entries).alias("entry"))
            records = records.withColumn("seq", F.col("first_seq") + F.col("entry.seq"))
            header = F.get(F.filter("entry.headers", lambda one: one["key"] == REDRIVE_HEADER), F.lit(0))["value"]
        else:  # a plain message is one record
            records, header = mine.withColumn("seq", F.col("first_seq")), F.col("redrive")
        records = _first_lives(records, header)
        lost = repeats.unexplained(records.where("named").join(there, ["producer", "seq"], "left_anti").select(*columns))
        gone = records.where("NOT named").join(places, ["first_topic", "first_partition", "order"], "left_anti").select(*columns)
        if repeats.lost_for_good:
            audit.looked_at["records that may repeat what is kept nowhere any more"] = lost.union(gone).count()
        else:
            audit.add("records that are in the log and not in the table", lost.union(gone), columns)


def _first_lives(records: DataFrame, header: Column) -> DataFrame:
    """Records with the identities of their first lives; the others' are their own. ``named``: by producer and sequence."""
    life = F.when(is_redrive("producer"), first_life(header))
    records = records.withColumn("life", life)
    came_back = F.col("life").isNotNull()
    return records.select(
        *POSITION,
        *(F.when(came_back, F.col(f"life.{name}")).otherwise(F.col(name)).alias(name) for name in ("producer", "seq")),
        F.coalesce("life.topic", "topic").alias("first_topic"),
        F.coalesce("life.partition", "partition").alias("first_partition"),
        F.struct("life.generation", "life.offset", "life.index").alias("order"),
        (~came_back | F.col("life.producer").isNotNull()).alias("named"),
    )


def _compare_totals(audit: Audit, messages: DataFrame, stored: DataFrame, voids: int, records: int) -> None:
    found = messages.where(F.col("void") & ~F.col("is_end")).agg(F.coalesce(F.sum("count"), F.lit(0))).collect()[0][0]
    if int(found) != voids:
        audit.findings.append(Finding(f"void records in the log, where the table's commits count {voids}", int(found)))
    good = stored.where(F.col("reason").isNull()).count()
    audit.looked_at["rows"] = good
    if good != records:
        audit.findings.append(Finding(f"rows in the table, where its commits count {records}", good))


def _check_ids(audit: Audit, stored: DataFrame) -> None:
    """Explicit ids may be there twice: bronze has every record of the log, and silver leaves their repeats out."""
    good = stored.where(F.col("reason").isNull()).select(f"{META}.*")
    by_seq = good.where(F.col("producer").isNotNull()).groupBy("producer", "seq").count().where("count > 1")
    audit.add("records that are in the table more than once (producer, sequence)", by_seq, ["producer", "seq"])
