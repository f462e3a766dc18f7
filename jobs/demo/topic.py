"""An independent look at a stream's topics: what Kafka really holds, whatever the producer and the bronze job say.

It shares no code with them: Spark's batch reader, the schema as the registry gives it, plain ``from_avro``, and records
told apart by what they say (a flight and its status), not by the sequence numbers that the repeat check goes by.
"""

from __future__ import annotations

import json
import urllib.request
from functools import reduce
from typing import Any

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.avro.functions import from_avro

from jobs.demo.proof import TopicContent
from pipeline.config import Config

# The part of the stamp that says whose a message is: its first field. What follows in the bytes is not looked at.
_STAMP = json.dumps({"type": "record", "name": "HeadraceStamp", "fields": [{"name": "shard", "type": "string"}]})
_FRAME_BYTES = 5  # Confluent framing: a zero, and the schema's id in four bytes


def read_topic(spark: SparkSession, config: Config, stream: str, identity: list[str]) -> TopicContent:
    """Count a stream's valid records and the different ones among them; ``identity`` names the fields that tell them apart.

    Void messages (of a shard, at or above its seal) are not of the stream. They are known only once every reshard is over.
    """
    topics, seals = _control(spark, config, stream)
    messages = _read(spark, config, topics, headers=True).where(F.length("value") > _FRAME_BYTES)
    stamp = F.get(F.filter("headers", lambda header: header.key == "headrace"), F.lit(0)).value  # null in an END marker
    messages = messages.withColumn("shard", from_avro(stamp.substr(F.lit(2), F.length(stamp) - 1), _STAMP).shard)
    for shard, seal in seals.items():
        messages = messages.where(~(F.col("shard").eqNullSafe(shard) & (F.col("offset") >= seal)))
    messages = messages.withColumn("schema_id", F.conv(F.hex(F.col("value").substr(2, 4)), 16, 10).cast("int"))
    parts = [_records(messages, *schema, identity) for schema in _schemas(config, stream)]
    counted = reduce(DataFrame.unionByName, parts).agg(F.count("*"), F.countDistinct(*identity)).first()
    return TopicContent(*(counted or (0, 0)))


def _records(messages: DataFrame, schema_id: int, schema: str, identity: list[str]) -> DataFrame:
    """Of the messages of one schema: those in aggregates, or the messages themselves."""
    body = F.col("value").substr(F.lit(_FRAME_BYTES + 1), F.length("value") - _FRAME_BYTES)
    values = messages.where(F.col("schema_id") == schema_id).select(from_avro(body, schema).alias("value"))
    if "records" in values.select("value.*").columns:
        values = values.select(F.explode("value.records").alias("entry")).select("entry.value")
    return values.select(*(F.col(f"value.{name}").alias(name) for name in identity))


def _control(spark: SparkSession, config: Config, stream: str) -> tuple[list[str], dict[str, int]]:
    """The stream's data topics and seals, from the events of its control topic in their order."""
    rows = _read(spark, config, [config.stream(stream).control_topic]).orderBy("offset").select("value").collect()
    topics: set[str] = set()
    seals: dict[str, int] = {}
    finished: set[str] = set()
    for row in rows:
        event = json.loads(bytes(row.value)) if row.value is not None else {}
        topics.update(shard["topic"] for shard in (*event.get("shards", ()), *event.get("children", ())))
        if event.get("type") in ("COMMIT", "ABORT") and event["reshard"] not in finished:  # whichever is first counts
            finished.add(event["reshard"])
            seals.update({shard: int(seal) for shard, seal in event.get("seals", {}).items() if shard not in seals})
    return sorted(topics), seals


def _read(spark: SparkSession, config: Config, topics: list[str], *, headers: bool = False) -> DataFrame:
    connection = config.connection.kafka_settings()
    reader = spark.read.format("kafka").option("subscribe", ",".join(topics)).option("includeHeaders", headers)
    reader = reader.option("kafka.bootstrap.servers", connection["bootstrap.servers"])
    return reader.option("startingOffsets", "earliest").option("endingOffsets", "latest").load()


def _schemas(config: Config, stream: str) -> list[tuple[int, str]]:
    """Id and text of every version under the subjects of the stream: of its aggregates, and of records that go alone."""
    found = config.stream(stream)
    record = json.loads(found.avro_schema.read_text(encoding="utf-8"))
    by_id: dict[int, str] = {}
    for subject in (found.subject, f"{record['namespace']}.{record['name']}"):
        versions = f"{config.connection.registry}/subjects/{subject}/versions"
        by_id |= {version["id"]: version["schema"] for version in (_get(f"{versions}/{n}") for n in _get(versions))}
    return list(by_id.items())


def _get(url: str) -> Any:
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(url, timeout=10) as answer:
        return json.load(answer)
