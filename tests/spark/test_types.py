"""Every type of Avro on its way from Python through Kafka and Spark to a Delta table and back, with values of any kind."""

from __future__ import annotations

import datetime
import decimal
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyspark.sql import functions as F

from pipeline import Consumer, Producer
from pipeline.errors import SchemaError

MakeLake = Callable[..., Any]
UTC = datetime.UTC
EPOCH = datetime.datetime(1970, 1, 1, tzinfo=UTC)
LONG = st.integers(-(2**63), 2**63 - 1)


def logical(base: str, name: str, **more: Any) -> dict[str, Any]:
    return {"type": base, "logicalType": name, **more}


def fixed(name: str, size: int, **more: Any) -> dict[str, Any]:
    return {"type": "fixed", "name": name, "size": size, **more}


def truncated(value: Any) -> Any:
    """To milliseconds, as the type holds it."""
    return value.replace(microsecond=value.microsecond // 1000 * 1000)


def micros(value: datetime.datetime) -> int:
    return (value - EPOCH) // datetime.timedelta(microseconds=1)


def midnight_ms(value: datetime.time) -> int:
    return ((value.hour * 60 + value.minute) * 60 + value.second) * 1_000 + value.microsecond // 1_000


def decimals(precision: int, scale: int) -> st.SearchStrategy[decimal.Decimal]:
    limit = 10**precision - 1
    return st.integers(-limit, limit).map(lambda n: decimal.Decimal(n).scaleb(-scale, decimal.Context(prec=60)))


MOMENTS = st.datetimes(datetime.datetime(1, 1, 2), datetime.datetime(9999, 12, 30), timezones=st.just(UTC)).map(truncated)
EXACT_MOMENTS = st.datetimes(datetime.datetime(1, 1, 2), datetime.datetime(9999, 12, 30), timezones=st.just(UTC))
LOCAL = st.datetimes(datetime.datetime(1, 1, 2), datetime.datetime(9999, 12, 30))
same = lambda value: value  # noqa: E731

# name: (Avro type, values, what a consumer gets, what stands in the table; timestamps as microseconds)
TYPES: dict[str, tuple[Any, st.SearchStrategy[Any], Callable[[Any], Any], Callable[[Any], Any]]] = {
    "decimal_bytes": (logical("bytes", "decimal", precision=20, scale=4), decimals(20, 4), same, same),
    "decimal_fixed": (fixed("Money", 8, logicalType="decimal", precision=18, scale=2), decimals(18, 2), same, same),
    "decimal_wide": (logical("bytes", "decimal", precision=38, scale=10), decimals(38, 10), same, same),
    "day": (logical("int", "date"), st.dates(), same, same),
    "time_ms": (logical("int", "time-millis"), st.times().map(truncated), same, midnight_ms),
    "time_us": (logical("long", "time-micros"), st.times(), same,
                lambda t: midnight_ms(t) * 1_000 + t.microsecond % 1_000),
    "ms": (logical("long", "timestamp-millis"), MOMENTS, same, micros),
    "us": (logical("long", "timestamp-micros"), EXACT_MOMENTS, same, micros),
    "ns": (logical("long", "timestamp-nanos"), LONG, same, same),
    "local_ms": (logical("long", "local-timestamp-millis"), LOCAL.map(truncated), same, same),
    "local_us": (logical("long", "local-timestamp-micros"), LOCAL, same, same),
    "local_ns": (logical("long", "local-timestamp-nanos"), LONG, same, same),
    "uuid_text": (logical("string", "uuid"), st.uuids(), same, str),
    "uuid_fixed": (fixed("Id", 16, logicalType="uuid"), st.uuids(), lambda u: u.bytes, lambda u: u.bytes),
    "span": (fixed("Span", 12, logicalType="duration"), st.binary(min_size=12, max_size=12), same, same),
    "flag": ("boolean", st.booleans(), same, same),
    "small": ("int", st.integers(-(2**31), 2**31 - 1), same, same),
    "large": ("long", LONG, same, same),
    "near": ("float", st.floats(width=32, allow_nan=False), same, same),
    "far": ("double", st.floats(allow_nan=False), same, same),
    "raw": ("bytes", st.binary(max_size=20), same, same),
    "text": ("string", st.text(max_size=10), same, same),
    "kind": ({"type": "enum", "name": "Kind", "symbols": ["A", "B"]}, st.sampled_from(["A", "B"]), same, same),
    "days": ({"type": "array", "items": logical("int", "date")}, st.lists(st.dates(), max_size=3), same, same),
    "prices": ({"type": "map", "values": logical("bytes", "decimal", precision=9, scale=2)},
               st.dictionaries(st.text(max_size=3), decimals(9, 2), max_size=2), same, same),
}  # fmt: skip
SCHEMA = {
    "type": "record",
    "name": "Types",
    "fields": [{"name": "n", "type": "int"}, *({"name": name, "type": kind[0]} for name, kind in TYPES.items())],
}
VALUES = st.fixed_dictionaries({name: kind[1] for name, kind in TYPES.items()})


def drawn(count: int) -> list[dict[str, Any]]:
    """Values as Hypothesis draws them, the edges first; one run of Spark over all of them."""
    found: list[dict[str, Any]] = []

    @settings(max_examples=count, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(VALUES)
    def draw(value: dict[str, Any]) -> None:
        found.append(value)

    draw()
    return found


def test_values_of_every_type_come_back_from_consumer_and_table(lake: MakeLake) -> None:
    values = drawn(150)
    shop = lake(shards=1, value=SCHEMA, key="n")
    with Producer(shop.stream, config=shop.config) as producer:
        for n, one in enumerate(values):
            producer.put(one | {"n": n}, key=str(n))
        producer.flush()
    with Consumer(shop.stream, group="g", config=shop.config) as consumer:
        read: dict[int, Any] = {}
        while len(read) < len(values):
            read |= {record.value["n"]: record.value for record in consumer.read(10)}
    shop.run()
    columns = [F.unix_micros(name).alias(name) if name in ("ms", "us") else F.col(name) for name in ("n", *TYPES)]
    stored = {row["n"]: row.asDict(recursive=True) for row in shop.read().select(*columns).collect()}
    assert len(stored) == len(values)
    for n, one in enumerate(values):
        for name, (_, _, to_consumer, to_table) in TYPES.items():
            assert read[n][name] == to_consumer(one[name]), (name, one[name])
            found = stored[n][name]
            assert (bytes(found) if isinstance(found, bytearray) else found) == to_table(one[name]), (name, one[name])


SQUARE = {"type": "record", "name": "Square", "fields": [{"name": "side", "type": "double"}, {"name": "label", "type": "string"}]}
UNION_SCHEMA = {
    "type": "record",
    "name": "Mixed",
    "fields": [
        {"name": "n", "type": "int"},
        {"name": "shape", "type": [
            "null",
            {"type": "record", "name": "Circle", "fields": [{"name": "radius", "type": "double"}]},
            SQUARE,
        ]},
        {"name": "either", "type": ["int", "string"]},
        {"name": "number", "type": ["int", "long"]},
        {"name": "by_name", "type": {"type": "map", "values": {"type": "array", "items": "Circle"}}},
    ],
}  # fmt: skip


def test_unions_of_records_and_maps_of_lists_are_columns(lake: MakeLake) -> None:
    shop = lake(shards=1, value=UNION_SCHEMA, key="n")
    circle, square = {"radius": 1.5}, {"side": 2.0, "label": "s"}
    with Producer(shop.stream, config=shop.config, linger_ms=1) as producer:
        producer.put({"n": 0, "shape": circle, "either": 1, "number": 1, "by_name": {"a": [circle]}}, key="0")
        producer.put({"n": 1, "shape": square, "either": "two", "number": 2**40, "by_name": {}}, key="0")
        producer.put({"n": 2, "shape": None, "either": 3, "number": 3, "by_name": {"b": [], "c": [circle, circle]}}, key="0")
        producer.flush()
    shop.run()
    rows = [row.asDict(recursive=True) for row in shop.read().orderBy("n").collect()]
    assert [row["shape"] for row in rows] == [
        {"member0": circle, "member1": None}, {"member0": None, "member1": square}, None,
    ]  # fmt: skip
    assert [row["either"] for row in rows] == [
        {"member0": 1, "member1": None}, {"member0": None, "member1": "two"}, {"member0": 3, "member1": None},
    ]  # fmt: skip
    assert [row["number"] for row in rows] == [1, 2**40, 3]
    assert [row["by_name"] for row in rows] == [{"a": [circle]}, {}, {"b": [], "c": [circle, circle]}]


@pytest.mark.parametrize(
    ("kind", "why"),
    [
        (["null", "Refused"], "contains itself"),
        (logical("bytes", "decimal", precision=39, scale=2), "38 digits"),
        ("null", "always null"),
        ({"type": "array", "items": "null"}, "always null"),
        ({"type": "record", "name": "Empty", "fields": []}, "without fields"),
        ({"type": "record", "name": "Cases", "fields": [{"name": n, "type": "int"} for n in "aA"]}, "case only"),
    ],
)
def test_what_a_table_cannot_hold_is_refused_when_the_stream_is_created(lake: MakeLake, kind: Any, why: str) -> None:
    schema = {"type": "record", "name": "Refused", "fields": [{"name": "item", "type": "string"}, {"name": "f", "type": kind}]}
    shop = lake(create=False, value=schema)
    with pytest.raises(SchemaError, match=why) as caught:
        Producer(shop.stream, config=shop.config)
    assert "bronze.orders" in str(caught.value)
