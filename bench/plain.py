"""The plain way: confluent-kafka with its Avro serializers, one record a message, the same settings (acks=all, lz4)."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable
from typing import Any

from confluent_kafka import Consumer, Producer
from confluent_kafka.schema_registry import SchemaRegistryClient
from confluent_kafka.schema_registry.avro import AvroDeserializer, AvroSerializer
from confluent_kafka.serialization import MessageField, SerializationContext

from bench.schema import ORDER
from pipeline.config import Connection
from pipeline.kafka.topics import Topics

SHARDS = 4
Finished = Callable[[Callable[[], object]], None]


def client(
    connection: Connection, topic: str, more: dict[str, Any] | None = None
) -> tuple[Producer, AvroSerializer, SerializationContext]:
    """A producer for a topic that is made here, and what serializes for it. ``more`` are settings of the client."""
    Topics(connection).create(topic, SHARDS, {})
    registry = SchemaRegistryClient({"url": connection.registry})
    serialize = AvroSerializer(registry, json.dumps(ORDER))
    context = SerializationContext(topic, MessageField.VALUE)
    producer = Producer(
        connection.kafka_settings()
        | {"acks": "all", "enable.idempotence": True, "compression.type": "lz4", "linger.ms": 100, "batch.size": 262_144}
        | {"queue.buffering.max.messages": 1_000_000}
        | (more or {})
    )
    return producer, serialize, context


def put(
    connection: Connection, topic: str, rows: list[dict[str, Any]], finished: Finished | None = None, more: Any = None
) -> tuple[float, float]:
    """Seconds until the last row was handed over, and until the last was acknowledged; then ``finished`` is called with a
    function that serves the client's callbacks."""
    producer, serialize, context = client(connection, topic, more)
    started = time.perf_counter()
    handed_over, seconds = _produce(producer, topic, ((serialize(row, context), row["customer"]) for row in rows), len(rows))
    if finished is not None:
        finished(lambda: producer.poll(0.05))
    return handed_over - started, seconds - started


def put_raw(connection: Connection, topic: str, values: list[tuple[bytes, str]]) -> float:
    """Seconds until the last of (value, key) is acknowledged, produced as it is."""
    producer, _, _ = client(connection, topic)
    started = time.perf_counter()
    return _produce(producer, topic, values, len(values))[1] - started


def _produce(producer: Producer, topic: str, values: Iterable[tuple[bytes, str]], count: int) -> tuple[float, float]:
    """When the last was handed over, and when the last was acknowledged."""
    acknowledged = 0

    def delivered(error: Any, _: Any) -> None:
        nonlocal acknowledged
        assert error is None, error
        acknowledged += 1

    for value, key in values:
        while True:
            try:
                producer.produce(topic, key=key, value=value, on_delivery=delivered)
                break
            except BufferError:
                producer.poll(0.05)
        producer.poll(0)
    handed_over = time.perf_counter()
    producer.flush(60)
    assert acknowledged == count
    return handed_over, time.perf_counter()


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
