"""The plain way: confluent-kafka with its Avro serializers, one record a message, the same settings (acks=all, lz4)."""

from __future__ import annotations

import json
import time
from typing import Any

from confluent_kafka import Consumer, Producer
from confluent_kafka.schema_registry import SchemaRegistryClient
from confluent_kafka.schema_registry.avro import AvroDeserializer, AvroSerializer
from confluent_kafka.serialization import MessageField, SerializationContext

from bench.schema import ORDER
from pipeline.config import Connection
from pipeline.kafka.topics import Topics

SHARDS = 4


def client(connection: Connection, topic: str) -> tuple[Producer, AvroSerializer, SerializationContext]:
    """A producer for a topic that is made here, and what serializes for it."""
    Topics(connection).create(topic, SHARDS, {})
    registry = SchemaRegistryClient({"url": connection.registry})
    serialize = AvroSerializer(registry, json.dumps(ORDER))
    context = SerializationContext(topic, MessageField.VALUE)
    producer = Producer(
        connection.kafka_settings()
        | {"acks": "all", "enable.idempotence": True, "compression.type": "lz4", "linger.ms": 100, "batch.size": 262_144}
        | {"queue.buffering.max.messages": 1_000_000}
    )
    return producer, serialize, context


def put(connection: Connection, topic: str, rows: list[dict[str, Any]]) -> tuple[float, float]:
    """Seconds until the last row was handed over, and until the last was acknowledged."""
    producer, serialize, context = client(connection, topic)
    acknowledged = 0

    def delivered(error: Any, _: Any) -> None:
        nonlocal acknowledged
        assert error is None, error
        acknowledged += 1

    started = time.perf_counter()
    for row in rows:
        value = serialize(row, context)
        while True:
            try:
                producer.produce(topic, key=row["customer"], value=value, on_delivery=delivered)
                break
            except BufferError:
                producer.poll(0.05)
        producer.poll(0)
    handed_over = time.perf_counter() - started
    producer.flush(60)
    assert acknowledged == len(rows)
    return handed_over, time.perf_counter() - started


def read(connection: Connection, topic: str, count: int) -> float:
    """Seconds from the first to the last of ``count`` records, polled and deserialized."""
    registry = SchemaRegistryClient({"url": connection.registry})
    deserialize = AvroDeserializer(registry)
    context = SerializationContext(topic, MessageField.VALUE)
    consumer = Consumer(connection.kafka_settings() | {"group.id": f"plain-{time.time_ns()}", "auto.offset.reset": "earliest"})
    consumer.subscribe([topic])
    started = 0.0
    seen = 0
    while seen < count:
        message = consumer.poll(1.0)
        if message is None or message.error():
            continue
        started = started or time.perf_counter()
        deserialize(message.value(), context)
        seen += 1
    seconds = time.perf_counter() - started
    consumer.close()
    return seconds
