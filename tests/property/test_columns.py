"""Encoding by columns writes what the encoder of one record writes, over random flat schemas, rows and tables; or it says
that it cannot."""

from __future__ import annotations

import datetime
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.schema.columns import ColumnEncoder
from pipeline.schema.encode import EntryEncoder
from pipeline.schema.value_schema import ValueSchema, parse_schema
from pipeline.schema.varint import zigzag

pytest.importorskip("pyruhvro")
property_settings = settings(max_examples=150, deadline=None, database=None, print_blob=True)
NOW_MS = 1_700_000_000_123
UTC = datetime.UTC

TIMES = st.datetimes(datetime.datetime(1, 1, 2), datetime.datetime(9999, 12, 30), timezones=st.just(UTC))
KINDS: dict[str, tuple[Any, pa.DataType, st.SearchStrategy[Any]]] = {
    "boolean": ("boolean", pa.bool_(), st.booleans()),
    "int": ("int", pa.int32(), st.integers(-(2**31), 2**31 - 1)),
    "long": ("long", pa.int64(), st.integers(-(2**63), 2**63 - 1)),
    "double": ("double", pa.float64(), st.floats()),
    "string": ("string", pa.string(), st.text(st.characters(exclude_categories=["Cs"]), max_size=20)),
    "date": ({"type": "int", "logicalType": "date"}, pa.date32(), st.dates()),
    "millis": (
        {"type": "long", "logicalType": "timestamp-millis"},
        pa.timestamp("ms", "UTC"),
        TIMES.map(lambda t: t.replace(microsecond=t.microsecond // 1000 * 1000)),
    ),
    "micros": ({"type": "long", "logicalType": "timestamp-micros"}, pa.timestamp("us", "Europe/Berlin"), TIMES),
    "enum": ({"type": "enum", "symbols": ["A", "B", "C"]}, pa.string(), st.sampled_from("ABC")),
}


@st.composite
def tables(draw: st.DrawFn) -> tuple[ValueSchema, pa.Schema, list[dict[str, Any]]]:
    """A flat schema, the Arrow schema of its tables, and rows."""
    fields, arrow, values = [], [], {}
    for index, kind in enumerate(draw(st.lists(st.sampled_from(sorted(KINDS)), min_size=1, max_size=6))):
        avro, arrow_type, value = KINDS[kind]
        if isinstance(avro, dict) and "symbols" in avro:
            avro = {**avro, "name": f"Enum{index}"}
        nullable = draw(st.sampled_from(["no", "first", "last"]))
        name = f"f{index}"
        fields.append({"name": name, "type": {"no": avro, "first": ["null", avro], "last": [avro, "null"]}[nullable]})
        arrow.append(pa.field(name, arrow_type))
        values[name] = value if nullable == "no" else st.none() | value
    rows = draw(st.lists(st.fixed_dictionaries(values), min_size=1, max_size=8))
    return parse_schema({"type": "record", "name": "R", "fields": fields}), pa.schema(arrow), rows


def by_rows(schema: ValueSchema, rows: list[dict[str, Any]]) -> list[bytes]:
    encode = EntryEncoder(schema).encode
    return [zigzag(index * 3) + encode(f"k{index}", None, 0, NOW_MS, None, row) for index, row in enumerate(rows)]


def by_columns(encoder: ColumnEncoder, columns: list[pa.Array], count: int) -> list[bytes]:
    keys = pa.array([f"k{index}" for index in range(count)])
    entries = encoder.encode(columns, keys, pa.array([index * 3 for index in range(count)], pa.int32()), NOW_MS)
    ends = list(entries.ends)
    assert ends[-1] <= encoder.bytes_max(columns, keys)
    return [bytes(entries.body[start:end]) for start, end in zip([0, *ends[:-1]], ends, strict=True)]


@property_settings
@given(tables())
def test_a_table_gives_the_bytes_of_its_rows(case: tuple[ValueSchema, pa.Schema, list[dict[str, Any]]]) -> None:
    schema, arrow, rows = case
    encoder = ColumnEncoder(schema)
    columns = encoder.of_table(pa.RecordBatch.from_pylist(rows, arrow))
    assert encoder.usable
    assert columns is not None
    assert by_columns(encoder, columns, len(rows)) == by_rows(schema, rows)


@property_settings
@given(tables(), st.data())
def test_dicts_give_the_same_bytes_or_are_left_to_the_rows_way(
    case: tuple[ValueSchema, pa.Schema, list[dict[str, Any]]], data: st.DataObject
) -> None:
    schema, _, rows = case
    encoder = ColumnEncoder(schema)
    if data.draw(st.booleans()):  # one value of another type: bool for int, int for double, bytes for string ...
        data.draw(st.sampled_from(rows))["f0"] = data.draw(st.sampled_from([True, 1, 1.5, "x", b"x", None, 2**70, "\ud800"]))
    columns = encoder.of_rows(rows)
    if columns is not None:
        assert by_columns(encoder, columns, len(rows)) == by_rows(schema, rows)


FLAT = parse_schema(
    {
        "type": "record",
        "name": "R",
        "fields": [
            {"name": "text", "type": "string"},
            {"name": "size", "type": "int"},
            {"name": "kind", "type": {"type": "enum", "name": "Kind", "symbols": ["A"]}},
            {"name": "at", "type": ["null", {"type": "long", "logicalType": "timestamp-millis"}]},
        ],
    }
)
GOOD: dict[str, Any] = {
    "text": pa.array(["a"]),
    "size": pa.array([1], pa.int16()),
    "kind": pa.array(["A"]).dictionary_encode(),
    "at": pa.array([None], pa.null()),
}


def test_smaller_ints_dictionaries_and_columns_of_nulls_are_taken() -> None:
    assert ColumnEncoder(FLAT).of_table(pa.RecordBatch.from_pydict(GOOD)) is not None


@pytest.mark.parametrize(
    "other",
    [
        {"text": pa.array([None], pa.string())},
        {"text": pa.array([b"a"])},
        {"size": pa.array([2**31])},
        {"size": pa.array([1.0])},
        {"kind": pa.array(["B"])},
        {"at": pa.array([0], pa.timestamp("ms"))},
        {"at": pa.array([1], pa.timestamp("us", "UTC"))},
        {"at": pa.array([2**60], pa.timestamp("ms", "UTC"))},
        {"more": pa.array([1])},
    ],
    ids=["null", "bytes", "big", "float", "symbol", "no zone", "finer", "year 10000", "unknown column"],
)
def test_a_table_that_may_not_fit_is_left_to_the_rows_way(other: dict[str, Any]) -> None:
    assert ColumnEncoder(FLAT).of_table(pa.RecordBatch.from_pydict(GOOD | other)) is None


NOT_FLAT: list[Any] = ["bytes", {"type": "array", "items": "int"}, ["int", "string"], {"type": "map", "values": "int"}]


@pytest.mark.parametrize("avro", NOT_FLAT)
def test_a_schema_that_is_not_flat_is_left_to_the_rows_way(avro: Any) -> None:
    schema = parse_schema({"type": "record", "name": "R", "fields": [{"name": "a", "type": avro}]})
    assert not ColumnEncoder(schema).usable
