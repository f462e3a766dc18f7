"""Typed records, and records of foreign serializers, on a real broker and registry."""

from __future__ import annotations

import dataclasses
import json
import time
import uuid
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Consumer as KafkaConsumer
from confluent_kafka import Producer as KafkaProducer
from pydantic import BaseModel, Field

from pipeline import Consumer, Producer
from pipeline.config import Config
from pipeline.errors import SchemaError
from pipeline.schema.encode import compile_encoder
from pipeline.schema.models import schema_of
from pipeline.schema.value_schema import load_schema

Make = Callable[..., tuple[Config, str]]
DEADLINE_S = 30.0


class Order(BaseModel):
    item: str
    number: int = Field(lt=100)
    note: str | None = None


@dataclasses.dataclass
class Leg:
    item: str
    stops: list[Order]


def read(consumer: Consumer, count: int) -> list[Any]:
    found: list[Any] = []
    deadline = time.monotonic() + DEADLINE_S
    while len(found) < count and time.monotonic() < deadline:
        found += consumer.read(0.5)
    return found


def letters(config: Config, stream: str, count: int) -> list[dict[str, Any]]:
    settings = {"bootstrap.servers": config.connection.bootstrap, "group.id": stream, "auto.offset.reset": "earliest"}
    consumer = KafkaConsumer(settings)
    consumer.subscribe([f"{stream}.dead"])
    found: list[dict[str, Any]] = []
    deadline = time.monotonic() + DEADLINE_S
    while len(found) < count and time.monotonic() < deadline:
        message = consumer.poll(0.5)
        if message is not None and not message.error():
            found.append({name: (value or b"").decode("utf-8", "replace") for name, value in message.headers() or []})
    consumer.close()
    return found


def test_instances_go_in_and_come_out_and_what_does_not_fit_its_model_is_a_dead_letter_alone(order_config: Make) -> None:
    config, stream = order_config(shards=1)
    with Producer(stream, config=config) as producer:
        producer.put(Order(item="a", number=1, note="n"), key="k")
        producer.put({"item": "b", "number": 100}, key="k")  # the schema takes it, the model does not
        producer.put(None, key="k")
        producer.put(Order(item="c", number=2), key="k")
        producer.flush()
    with Consumer(stream, group="g", config=config, model=Order) as consumer:
        records = read(consumer, 3)
        assert [record.value for record in records] == [Order(item="a", number=1, note="n"), None, Order(item="c", number=2)]
        assert [record.index for record in records] == [0, 2, 3]
        assert consumer.read(0.2) == []
    with Consumer(stream, group="g", config=config, model=Order) as consumer:  # everything was committed
        assert consumer.read(1.0) == []
    [letter] = letters(config, stream, 1)
    text = json.dumps(letter)
    assert "does not fit the model Order: number (less_than)" in text


def test_an_aggregate_of_which_nothing_fits_is_passed(order_config: Make) -> None:
    config, stream = order_config(shards=1)
    with Producer(stream, config=config) as producer:
        for number in (100, 101):
            producer.put({"item": "b", "number": number}, key="k")
        producer.flush()
        producer.put(Order(item="c", number=2), key="k")
        producer.flush()
    with Consumer(stream, group="g", config=config, model=Order) as consumer:
        seen: list[Any] = []
        assert consumer.run(lambda record: seen.append(record.value), max_records=1) == 1
        assert seen == [Order(item="c", number=2)]
    assert len(letters(config, stream, 2)) == 2


def test_a_stream_of_a_dataclass_holds_its_nested_models(order_config: Make, tmp_path: Path) -> None:
    config, stream = order_config(shards=1, schema="leg.avsc")
    (tmp_path / "leg.avsc").write_text(schema_of(Leg, "typed").text)
    leg = Leg("x", [Order(item="a", number=1), Order(item="b", number=2, note="n")])
    with Producer(stream, config=config, linger_ms=1) as producer:
        producer.put(leg, key="k")
        producer.flush()
    with Consumer(stream, group="g", config=config, model=Leg) as consumer:
        assert [record.value for record in read(consumer, 1)] == [leg]


def test_what_is_no_model_is_refused(order_config: Make) -> None:
    config, stream = order_config()
    with pytest.raises(SchemaError, match="neither a pydantic model nor a dataclass"):
        Consumer(stream, group="g", config=config, model=dict)


def test_messages_of_glues_serializer_are_read_with_the_streams_own_schema(order_config: Make) -> None:
    config, stream = order_config(shards=1, foreign="accept")
    with Producer(stream, config=config, linger_ms=1) as producer:
        producer.put({"item": "ours", "number": 0}, key="k")
        producer.flush()
    body = compile_encoder(load_schema(config.stream(stream).avro_schema))({"item": "glue", "number": 7})
    version = uuid.uuid4().bytes
    foreign = KafkaProducer({"bootstrap.servers": config.connection.bootstrap, "linger.ms": 0})
    foreign.produce(stream, b"\x03\x05" + version + b"rubbish", b"k", partition=0)
    foreign.produce(stream, b"\x03\x00" + version + body, b"k", partition=0)
    foreign.produce(stream, b"\x03\x05" + version + zlib.compress(body), b"k", partition=0)
    assert foreign.flush(10) == 0
    with Consumer(stream, group="g", config=config) as consumer:
        values = [record.value for record in read(consumer, 3)]
    assert values == [{"item": "ours", "number": 0, "note": None}] + [{"item": "glue", "number": 7, "note": None}] * 2
    [letter] = letters(config, stream, 1)
    assert "zlib" in json.dumps(letter)
