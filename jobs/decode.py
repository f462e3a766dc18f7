"""Messages to rows, all in the JVM: ``from_avro`` with each writer's schema, chosen by id in one expression (DESIGN.md §6).

No Python runs per row, and nothing as large as a message is carried beside its records: ``explode`` copies what stands next
to the array once per record.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql import types as T
from pyspark.sql.avro.functions import from_avro

from jobs.commits import Counts
from jobs.reader_schema import fields
from jobs.redriven import HEADER, is_redrive
from jobs.schemas import BadId, Writer
from jobs.survey import GLUE_ID, Fate, Plan
from jobs.tables import DELETED, META, REJECTED, RESERVED
from pipeline.errors import SchemaError
from pipeline.model.keys import HASH_HEADER
from pipeline.model.record import TRACE_HEADER
from pipeline.model.repeats import Marks
from pipeline.model.shards import ShardMap
from pipeline.model.stamp import CLAIM_HEADER, END_HEADER, REDRIVE_HEADER, STAMP_HEADER
from pipeline.schema.envelope import envelope_tree
from pipeline.schema.framing import GLUE_BYTES, GLUE_VERSION

_MILLIS = {"type": "long", "logicalType": "timestamp-millis"}
_STAMP = json.dumps(
    {
        "type": "record",
        "name": "HeadraceStamp",
        "fields": [
            {"name": name, "type": kind}
            for name, kind in (
                ("shard", "string"),
                ("producer", "string"),
                ("incarnation", "long"),
                ("first_seq", "long"),
                ("last_seq", "long"),
                ("previous_seq", "long"),
                ("count", "int"),
                ("created_at", _MILLIS),
            )
        ],
    }
)
_HASH_FLIP = -(1 << 63)  # moves unsigned 64-bit numbers into the signed ones, order kept; on the bits it is an XOR
_RAW = (
    "topic string, partition int, offset long, timestamp timestamp, key binary, value binary, stamp binary, is_end boolean, "
    "is_claim boolean, redrive binary, traceparent binary, ingested_at timestamp"
)
_RULINGS = T.StructType(
    [
        T.StructField("r_topic", T.StringType()),
        T.StructField("r_partition", T.IntegerType()),
        T.StructField("r_offset", T.LongType()),
        T.StructField("fate", T.IntegerType()),
        T.StructField("r_reason", T.StringType()),
        T.StructField("r_detail", T.StringType()),
        T.StructField(
            "marks",
            T.ArrayType(
                T.StructType(
                    [T.StructField("low", T.LongType()), T.StructField("high", T.LongType()), T.StructField("seq", T.LongType())]
                )
            ),
        ),
    ]
)


def raw_columns(messages: DataFrame) -> DataFrame:
    """What is kept of Kafka's columns: everything that survey and decoding need, fetched once."""

    def header(name: str) -> Column:  # nearly always the first one; the general form is dear per message
        first = F.get(F.col("headers"), F.lit(0))
        others = F.get(F.filter("headers", lambda one: one["key"] == name), F.lit(0))
        return F.when(first["key"] == name, first).otherwise(F.when(F.size("headers") > 1, others))

    return messages.select(
        "topic",
        "partition",
        "offset",
        "timestamp",
        "key",
        "value",
        header(STAMP_HEADER)["value"].alias("stamp"),
        header(END_HEADER).isNotNull().alias("is_end"),
        header(CLAIM_HEADER).isNotNull().alias("is_claim"),
        header(REDRIVE_HEADER)["value"].alias("redrive"),  # of a plain message; packed records have their own
        header(TRACE_HEADER)["value"].alias("traceparent"),  # of a plain message; packed records have their own
        _now().alias("ingested_at"),
    )


def _now() -> Column:
    """The time, as a column that generated code asks for. A plain constant stands in the code itself, which would be generated
    and compiled anew, and be slow at first, in every micro-batch; the array does not, and to Spark the index is none."""
    return F.get(F.array(F.lit(datetime.now(UTC))), F.col("partition") * 0)


def survey_columns(raw: DataFrame) -> DataFrame:
    """The columns of jobs.survey.Seen, in its order."""
    value = F.length("value"), F.substring("value", 1, 5)
    return raw.select("topic", "partition", "offset", "stamp", "is_end", *value, "is_claim")


class Decoder:
    """Messages to rows, for the schemas met and a shard map. One is kept for as long as these are the same: to make its columns
    takes longer than to decode a small micro-batch. Used by one thread at a time. Raises SchemaError as ``check_columns``."""

    def __init__(
        self, writers: Sequence[Writer], bad: Sequence[BadId], reader: Mapping[str, Any], shard_map: ShardMap
    ) -> None:
        check_columns(reader)
        self._framing = _framing(writers)
        self._decoded = _decoded(writers, bad, reader)
        self._has_plain = any(not writer.is_envelope for writer in writers)
        self._entries: Column | None = None
        self._verdict = _verdict()
        self._message, self._rejected, self._good = _message(shard_map), _rejected(), _good()
        self._columns = _columns(reader)

    def rows(self, raw: DataFrame, plan: Plan) -> DataFrame:
        """The bronze rows of a micro-batch: one per accepted record, one per rejected message. With redriven messages among
        them, there is a column more, for jobs.redriven to take in."""
        messages = _apply(raw, plan).select("*", *self._framing).select("*", *self._decoded)
        if self._entries is None:
            self._entries = _entries(messages, self._has_plain)
        marks = ["marks"] if plan.partly else []
        messages = messages.withColumn("entries", self._entries).withColumns(self._verdict)
        messages = messages.select(self._message, self._rejected, *self._good, *marks)
        exploded = messages.select(
            "message", "rejected", "first_seq", *marks, F.posexplode_outer("entries").alias("index", "entry")
        )
        exploded = exploded.where(F.col("index").isNotNull() | F.col("rejected").isNotNull())
        if plan.partly:
            exploded = exploded.where(~_is_repeat())
        header = F.coalesce(_header(REDRIVE_HEADER), F.col("message.redrive"))
        redriven = [F.when(is_redrive("message.producer"), header).alias(HEADER)] if plan.redriven else []
        return exploded.select(*self._columns, *redriven)


def empty(spark: SparkSession, reader: Mapping[str, Any], shard_map: ShardMap) -> DataFrame:
    """No rows, with the columns of a table for this schema."""
    nothing = Plan([], set(), Marks(), Counts(), stamped=0, partly=0)
    return Decoder((), (), reader, shard_map).rows(spark.createDataFrame([], _RAW), nothing)


def check_columns(reader: Mapping[str, Any]) -> None:
    """Raises SchemaError where a field has a name that tables use themselves."""
    if taken := sorted(RESERVED.intersection(fields(reader))):
        raise SchemaError(f"the schema has fields {', '.join(taken)}, which tables use themselves: rename them")


def _apply(raw: DataFrame, plan: Plan) -> DataFrame:
    """The messages with what the survey ruled; those left out are gone. Without rulings, nothing is joined."""
    if not plan.rulings:
        nothing = {"fate": "int", "r_reason": "string", "r_detail": "string"}
        return raw.withColumns({name: F.lit(None).cast(kind) for name, kind in nothing.items()})
    listed = [
        (
            one.topic,
            one.partition,
            one.offset,
            int(one.fate),
            one.reason,
            one.detail,
            [(m.low + _HASH_FLIP, m.high - 1 + _HASH_FLIP, m.seq) for m in one.marks] or None,
        )
        for one in plan.rulings
    ]
    rulings = raw.sparkSession.createDataFrame(listed, _RULINGS)
    here = (
        (raw["topic"] == rulings["r_topic"])
        & (raw["partition"] == rulings["r_partition"])
        & (raw["offset"] == rulings["r_offset"])
    )
    joined = raw.join(F.broadcast(rulings), here, "left").drop("r_topic", "r_partition", "r_offset")
    return joined.where(F.col("fate").isNull() | (F.col("fate") != int(Fate.SKIP)))


def _framing(writers: Sequence[Writer]) -> list[Column]:
    """``stamped`` (the stamp) and ``schema_id``."""
    framed = F.col("value").isNotNull() & F.col("r_reason").isNull()
    schema_id = F.conv(F.hex(F.substring("value", 2, 4)), 16, 10).cast("int")
    if any(w.id == GLUE_ID for w in writers):
        schema_id = F.when(F.hex(F.substring("value", 1, 1)) == f"{GLUE_VERSION:02X}", F.lit(GLUE_ID)).otherwise(schema_id)
    return [
        F.when(F.col("r_reason").isNull(), _avro(F.expr("substring(stamp, 2)"), _STAMP)).alias("stamped"),
        F.when(framed, schema_id).alias("schema_id"),
    ]


def _decoded(writers: Sequence[Writer], bad: Sequence[BadId], reader: Mapping[str, Any]) -> list[Column]:
    """``reason``, ``detail``, ``packed`` and ``plain``: null where a value does not decode."""
    reason, detail = F.col("r_reason"), F.col("r_detail")
    for one in bad:
        this = F.col("schema_id") == one.id
        reason, detail = F.coalesce(reason, F.when(this, one.reason)), F.coalesce(detail, F.when(this, one.detail))
    body, glue_body = F.expr("substring(value, 6)"), F.expr(f"substring(value, {GLUE_BYTES + 1})")
    envelope = json.dumps(envelope_tree(dict(reader), _MILLIS))
    wrapped = json.dumps(_wrapper(dict(reader)))
    packed = _by_id([(w.id, _avro(body, w.text, envelope)) for w in writers if w.is_envelope], envelope)
    plain = _by_id(
        [
            (w.id, _avro(glue_body if w.id == GLUE_ID else body, json.dumps(_wrapper(json.loads(w.text))), wrapped))
            for w in writers
            if not w.is_envelope
        ],
        wrapped,
    )
    return [reason.alias("reason"), detail.alias("detail"), packed["records"].alias("packed"), plain["value"].alias("plain")]


def _by_id(decoders: list[tuple[int, Column]], reader_text: str) -> Column:
    """One expression over all ids. With none, a null of the reader's type."""
    out = F.when(F.lit(False), _avro(F.lit(None).cast("binary"), reader_text))
    for schema_id, decoder in decoders:
        out = out.when(F.col("schema_id") == schema_id, decoder)
    return out


def _avro(data: Column, writer_text: str, reader_text: str | None = None) -> Column:
    """Bytes that do not decode give a struct of nulls, whatever the schema requires: nothing here may fail the micro-batch."""
    options = {"mode": "PERMISSIVE"} | ({} if reader_text is None else {"avroSchema": reader_text})
    return from_avro(data, writer_text, options)


def _wrapper(value: Any) -> dict[str, Any]:
    """A record around one value: its bytes are the value's own. ``from_avro`` gives a struct of nulls for bytes that do not
    decode, which a value with optional fields only could be in earnest; inside the wrapper it is a null."""
    return {"type": "record", "name": "HeadracePlain", "fields": [{"name": "value", "type": value}]}


def _entries(messages: DataFrame, has_plain: bool) -> Column:
    """Packed records as they are; a plain one, or a plain tombstone (null value), as an array of one."""
    entry_type = messages.schema["packed"].dataType
    assert isinstance(entry_type, T.ArrayType)
    alone = F.array(
        F.struct(
            F.lit(0).alias("seq"),
            F.col("key").cast("string").alias("key"),
            F.lit(None).cast("string").alias("id"),
            F.lit(0).alias("salt"),
            F.col("timestamp").alias("timestamp"),
            F.lit(None).alias("headers"),
            F.col("plain").alias("value"),
        )
    ).cast(entry_type)
    is_tombstone = F.col("value").isNull() & F.col("reason").isNull()
    if not has_plain:
        return F.when(is_tombstone, alone).otherwise(F.col("packed"))
    return F.when(is_tombstone | F.col("plain").isNotNull(), alone).otherwise(F.col("packed"))


def _verdict() -> dict[str, Column]:
    """What is wrong with a message: ``broken``, and ``why``."""
    count, size = F.col("stamped.count"), F.size("entries")
    broken = (
        F.when(F.col("reason").isNotNull(), F.col("reason"))
        .when(F.col("entries").isNull(), F.lit("decode"))
        .when(count.isNotNull() & (count != size), F.lit("count"))
    )
    detail = (
        F.when(F.col("reason").isNotNull(), F.col("detail"))
        .when(F.col("entries").isNull(), F.concat(F.lit("the value is not Avro of schema "), F.col("schema_id")))
        .when(count != size, F.concat(F.lit("the stamp says "), count, F.lit(" records, there are "), size))
    )
    return {"broken": broken, "why": detail}


def _rejected() -> Column:
    """What is wrong with a message, as its row has it; null where nothing is."""
    return F.when(
        F.col("broken").isNotNull(),
        F.struct(
            F.col("value").alias("raw"),
            F.col("broken").alias("reason"),
            F.col("why").alias("detail"),
            F.col("key").alias("key"),
            F.col("stamp").alias("stamp"),
            # Of messages that the survey accepted only: what jobs.tables needs for exact totals.
            F.when(F.col("r_reason").isNull(), F.col("stamped.count")).alias("records"),
        ),
    ).alias("rejected")


def _message(shard_map: ShardMap) -> Column:
    """What describes a message, carried beside its records."""
    return F.struct(
        F.col("topic").alias("topic"),
        F.col("partition").alias("partition"),
        F.col("offset").alias("offset"),
        F.col("timestamp").alias("timestamp"),
        F.col("stamped.shard").alias("shard"),
        _generation(shard_map).alias("generation"),
        F.col("stamped.producer").alias("producer"),
        F.col("stamped.created_at").alias("produced_at"),
        F.col("schema_id").alias("schema_id"),
        F.col("ingested_at").alias("ingested_at"),
        F.col("redrive").alias("redrive"),
        F.col("traceparent").alias("traceparent"),
    ).alias("message")


def _good() -> list[Column]:
    """``first_seq``, and the ``entries`` of a message that nothing is wrong with."""
    return [
        F.col("stamped.first_seq").alias("first_seq"),
        F.when(F.col("broken").isNull(), F.col("entries")).alias("entries"),
    ]


def _generation(shard_map: ShardMap) -> Column:
    """Of the stamp's shard; of a foreign message, that of the shard which had its place at its offset."""
    by_shard = F.create_map(*(F.lit(x) for s in shard_map.shards.values() for x in (s.id, s.generation)))
    by_place = F.lit(None).cast("int")
    for shard in reversed(shard_map.in_lineage_order()):
        here = (F.col("topic") == shard.topic) & (F.col("partition") == shard.partition)
        if shard.seal is not None:
            here = here & (F.col("offset") < shard.seal)
        by_place = F.when(here, F.lit(shard.generation)).otherwise(by_place)
    if not shard_map.shards:
        return by_place
    return F.when(F.col("stamped.shard").isNotNull(), F.try_element_at(by_shard, F.col("stamped.shard"))).otherwise(by_place)


def _is_repeat() -> Column:
    """Of a partly repeated aggregate: the record's sequence is at or below the mark of its hash range."""
    salted = F.concat("entry.key", F.lit("#"), F.col("entry.salt"))
    given = _header(HASH_HEADER)
    own = F.xxhash64(F.when(F.col("entry.salt") != 0, salted).otherwise(F.col("entry.key")))
    hash_key = F.coalesce(F.conv(F.hex(given), 16, -10).cast("long"), own).bitwiseXOR(F.lit(_HASH_FLIP))
    seq = F.col("first_seq") + F.col("entry.seq")
    inside = F.exists("marks", lambda m: (hash_key >= m["low"]) & (hash_key <= m["high"]) & (seq <= m["seq"]))
    return F.coalesce(F.col("entry").isNotNull() & inside, F.lit(False))


def _header(name: str) -> Column:
    """The first of an entry's headers with this name. Not by a lambda: where rows are made, one would keep the whole step from
    being compiled."""
    index = F.array_position("entry.headers.key", name).cast("int") - 1
    return F.get("entry.headers.value", index)


def _columns(reader: Mapping[str, Any]) -> list[Column]:
    good = F.col("rejected").isNull()
    meta = F.struct(
        F.col("entry.key").alias("key"),
        F.col("entry.salt").alias("salt"),
        F.col("message.shard").alias("shard"),
        F.struct(
            F.col("message.generation").alias("generation"),
            F.col("message.offset").alias("offset"),
            F.col("index").alias("index"),
        ).alias("order"),
        F.col("message.partition").alias("partition"),
        F.col("message.producer").alias("producer"),
        (F.col("first_seq") + F.col("entry.seq")).alias("seq"),
        F.col("entry.id").alias("id"),
        F.col("message.schema_id").alias("schema_id"),
        F.coalesce(F.col("entry.timestamp"), F.col("message.timestamp")).alias("timestamp"),
        F.col("message.produced_at").alias("produced_at"),
        F.col("message.ingested_at").alias("ingested_at"),
        F.col("message.topic").alias("topic"),
        F.coalesce(_header(TRACE_HEADER), F.col("message.traceparent")).cast("string").alias("traceparent"),
    )
    return [
        *(F.col(f"entry.value.{name}").alias(name) for name in fields(reader)),
        meta.alias(META),
        F.col("rejected").alias(REJECTED),
        (good & F.col("entry.value").isNull()).alias(DELETED),
    ]
