"""A stream's messages as its topics hold them, whatever the jobs made of them: stamps and seals, by Spark's batch reader.

It shares the control log's replay with the jobs (there is one truth about seals) and nothing of the survey or the repeat check.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.avro.functions import from_avro

from jobs.audits.finding import Audit
from jobs.kafka_options import kafka_options
from pipeline.config import Connection
from pipeline.model.shards import Place, ShardMap
from pipeline.model.stamp import END_HEADER, REDRIVE_HEADER, STAMP_HEADER

STAMP = json.dumps(
    {
        "type": "record",
        "name": "Stamp",
        "fields": [
            {"name": "shard", "type": "string"},
            {"name": "producer", "type": "string"},
            *({"name": name, "type": "long"} for name in ("incarnation", "first_seq", "last_seq", "previous_seq")),
            {"name": "count", "type": "int"},
            {"name": "created_at", "type": "long"},
        ],
    }
)
POSITION = ["topic", "partition", "offset"]


def read_messages(
    spark: SparkSession, connection: Connection, shard_map: ShardMap, ranges: Mapping[Place, tuple[int, int]]
) -> DataFrame:
    """Messages at offsets [start, end) of each place: position, value, is_end, redrive header, the stamp's fields
    (null without one), void."""
    reader = spark.read.format("kafka").options(**kafka_options(connection)).option("includeHeaders", "true")
    for option, side in (("startingOffsets", 0), ("endingOffsets", 1)):
        offsets: dict[str, dict[str, int]] = {}
        for (topic, partition), bounds in ranges.items():
            offsets.setdefault(topic, {})[str(partition)] = bounds[side]
        reader = reader.option(option, json.dumps(offsets))
    assigned = {topic: sorted(p for t, p in ranges if t == topic) for topic in {topic for topic, _ in ranges}}

    def header(name: str) -> Column:
        return F.get(F.filter("headers", lambda one: one["key"] == name), F.lit(0))

    stamp = header(STAMP_HEADER)["value"]
    messages = reader.option("assign", json.dumps(assigned)).load().select(
        *POSITION,
        "value",
        header(END_HEADER).isNotNull().alias("is_end"),
        header(REDRIVE_HEADER)["value"].alias("redrive"),
        stamp.isNotNull().alias("has_stamp"),
        from_avro(F.substring(stamp, 2, 1 << 20), STAMP, {"mode": "PERMISSIVE"}).alias("stamp"),
    )  # fmt: skip
    messages = messages.select(*POSITION, "value", "is_end", "redrive", "has_stamp", "stamp.*")
    seals = [(shard.id, shard.seal) for shard in shard_map.shards.values() if shard.seal is not None]
    sealed = spark.createDataFrame(seals, "shard string, seal long")
    void = F.coalesce(F.col("offset") >= F.col("seal"), F.lit(False))
    return messages.join(F.broadcast(sealed), "shard", "left").withColumn("void", void)


def check_chains(audit: Audit, messages: DataFrame, trimmed: set[Place]) -> None:
    """Each producer's chain: a message names the last sequence that its incarnation sent to the shard before it."""
    stamped = messages.where(F.col("has_stamp") & F.col("producer").isNotNull() & ~F.col("is_end") & ~F.col("void"))
    chain = ["producer", "incarnation", "shard"]
    audit.looked_at["messages in producers' chains"] = stamped.count()
    if trimmed:  # what the first message kept of a chain names may be gone
        gone = stamped.sparkSession.createDataFrame(sorted(trimmed), "topic string, partition int")
        first = stamped.join(F.broadcast(gone), ["topic", "partition"]).groupBy(*chain).agg(F.min("first_seq").alias("first_seq"))
        stamped = stamped.join(first.withColumn("is_first", F.lit(True)), [*chain, "first_seq"], "left")
        checked = stamped.where(F.col("is_first").isNull())
    else:
        checked = stamped
    there = stamped.select(*chain, F.col("last_seq").alias("previous_seq")).distinct()
    holes = checked.where(F.col("previous_seq") >= 0).join(there, [*chain, "previous_seq"], "left_anti")
    audit.add(
        "messages whose predecessor in its producer's chain is not in the log", holes, [*POSITION, "producer", "previous_seq"]
    )
