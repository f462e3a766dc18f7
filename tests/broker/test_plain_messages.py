"""`aggregation: none`: every record is a message of its own, for compacted topics and for readers that know nothing of us. A
record that is alone in its aggregate is such a message too (ADR 7)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from confluent_kafka.schema_registry import SchemaRegistryClient
from confluent_kafka.schema_registry.avro import AvroDeserializer
from confluent_kafka.serialization import MessageField, SerializationContext

from pipeline import Config, Consumer, Producer
from pipeline.model.record import Record
from tests.broker.test_producer import order, raw_messages

Make = Callable[..., tuple[Config, str]]


def read(config: Config, stream: str, count: int) -> list[Record]:
    found: list[Record] = []
    with Consumer(stream, group="g", config=config) as consumer:
        while len(found) < count:
            records = consumer.read(20.0)
            assert records, f"{len(found)} of {count} records"
            found += records
    return found


def test_a_plain_avro_client_reads_the_records_by_their_partition_keys(order_config: Make) -> None:
    config, stream = order_config(aggregation="none", shards=1)
    with Producer(stream, config=config) as producer:
        producer.put(order(1), key="apple", headers=[("color", b"red"), ("empty", None)])
        producer.put(None, key="plum")
    deserialize = AvroDeserializer(SchemaRegistryClient({"url": config.connection.registry}))
    first, second = raw_messages(config.connection.bootstrap, stream, 1)
    context = SerializationContext(stream, MessageField.VALUE)
    assert (first.key(), deserialize(first.value(), context)) == (b"apple", order(1))
    assert first.headers()[1:] == [("color", b"red"), ("empty", None)]
    assert (second.key(), second.value()) == (b"plum", None)


def test_a_consumer_gets_what_was_put_tombstones_and_headers_too(order_config: Make) -> None:
    config, stream = order_config(aggregation="none", shards=2)
    with Producer(stream, config=config) as producer:
        producer.put(order(1), key="apple", headers=[("color", b"red")])
        receipt = producer.put(None, key="apple")
        producer.put(order(2), key="plum", id="explicit")
        producer.put(order(3), key="pear", hash_key=5)
    found = {(one.key, None if one.value is None else one.value["number"]): one for one in read(config, stream, 4)}
    assert set(found) == {("apple", 1), ("apple", None), ("plum", 2), ("pear", 3)}
    assert found["apple", 1].headers == [("color", b"red")]
    assert found["plum", 2].id == "explicit"
    assert found["apple", 1].order < found["apple", None].order
    assert found["apple", None].seq == receipt.result(0).seq == 1


def test_a_time_of_put_survives_the_way(order_config: Make, monkeypatch: Any) -> None:
    config, stream = order_config(aggregation="none", shards=1)
    put_at_ms = 1_700_000_000_123
    monkeypatch.setattr("pipeline.produce.producer.time_ns", lambda: put_at_ms * 1_000_000)
    with Producer(stream, config=config) as producer:
        producer.put(order(1), key="apple")
    assert [one.produced_at_ms for one in read(config, stream, 1)] == [put_at_ms]


def test_many_rows_go_alone_as_well(order_config: Make) -> None:
    config, stream = order_config(aggregation="none", shards=2)
    with Producer(stream, config=config) as producer:
        producer.put_many(order(n) | {"item": f"k{n % 7}"} for n in range(1_500))
    messages = raw_messages(config.connection.bootstrap, stream, 2)
    assert {message.key() for message in messages} == {b"k%d" % n for n in range(7)}
    assert len(messages) == 1_500
    by_key: dict[str, list[int]] = {}
    for one in read(config, stream, 1_500):
        by_key.setdefault(one.key, []).append(one.value["number"])
    assert by_key == {f"k{n}": list(range(n, 1_500, 7)) for n in range(7)}


def test_a_record_that_is_flushed_alone_is_a_plain_message_and_those_flushed_together_are_not(order_config: Make) -> None:
    config, stream = order_config(shards=1)
    with Producer(stream, config=config, linger_ms=60_000) as producer:
        producer.put(order(0), key="lamp", headers=[("trace", b"\x01")])
        producer.flush(30)
        producer.put(order(1), key="lamp")
        producer.put(order(2), key="lamp")
    alone, together = raw_messages(config.connection.bootstrap, stream, 1)
    deserialize = AvroDeserializer(SchemaRegistryClient({"url": config.connection.registry}))
    context = SerializationContext(stream, MessageField.VALUE)
    assert (alone.key(), deserialize(alone.value(), context), alone.headers()[1:]) == (b"lamp", order(0), [("trace", b"\x01")])
    assert [entry["value"] for entry in deserialize(together.value(), context)["records"]] == [order(1), order(2)]
    with Consumer(stream, group="g", config=config) as consumer:
        records = [record for _ in range(2) for record in consumer.read(20.0)]
    assert [(record.value, record.key, record.seq) for record in records] == [(order(n), "lamp", n) for n in range(3)]
