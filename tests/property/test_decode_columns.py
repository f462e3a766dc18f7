"""Aggregates decoded by column (pyruhvro) beside fastavro: the same records, and never more than fastavro takes."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import DecodeError
from pipeline.schema.decode import AggregateDecoder
from pipeline.schema.decode_columns import column_decoder
from pipeline.schema.encode import EntryEncoder, aggregate_body
from pipeline.schema.envelope import envelope_text
from pipeline.schema.value_schema import parse_schema

pytest.importorskip("pyruhvro")

INNER = {"type": "record", "name": "Inner", "fields": [{"name": "n", "type": "int"}, {"name": "s", "type": ["null", "string"]}]}
FIELDS: dict[str, tuple[Any, st.SearchStrategy[Any]]] = {
    "flag": ("boolean", st.booleans()),
    "small": ("int", st.integers(-(2**31), 2**31 - 1)),
    "big": (["long", "null"], st.none() | st.integers(-(2**63), 2**63 - 1)),
    "real": ("double", st.floats(allow_nan=False)),
    "half": (["null", "float"], st.none() | st.floats(width=32, allow_nan=False)),
    "text": ("string", st.text(max_size=8)),
    "note": (["null", "string"], st.none() | st.text(max_size=8)),
    "kind": ({"type": "enum", "name": "Kind", "symbols": ["A", "B"]}, st.sampled_from("AB")),
    "day": ({"type": "int", "logicalType": "date"}, st.dates()),
    "at": ({"type": "long", "logicalType": "timestamp-millis"}, st.integers(-(10**12), 10**13)),
    "inner": (
        ["null", INNER],
        st.none() | st.fixed_dictionaries({"n": st.integers(0, 9), "s": st.none() | st.text(max_size=3)}),
    ),
}
SCHEMA = parse_schema({"type": "record", "name": "V", "fields": [{"name": n, "type": kind} for n, (kind, _) in FIELDS.items()]})
VALUES = st.none() | st.fixed_dictionaries({name: values for name, (_, values) in FIELDS.items()})
HEADERS = st.lists(st.tuples(st.text(max_size=3), st.none() | st.binary(max_size=3)), max_size=1)
ENTRIES = st.lists(
    st.tuples(st.text(max_size=4), st.none() | st.text(max_size=3), st.integers(0, 9), st.integers(0, 2**42), HEADERS, VALUES),
    max_size=6,
)
FAST = AggregateDecoder(envelope_text(SCHEMA))
_encode = EntryEncoder(SCHEMA).encode


def body_of(entries: list[tuple[Any, ...]]) -> bytes:
    return aggregate_body((index, _encode(*entry)) for index, entry in enumerate(entries))


def as_rows(body: bytes) -> list[tuple[Any, ...]] | None:
    try:
        got = FAST.decode_columns(body)
    except DecodeError:
        return None
    headers = got.headers or [[]] * len(got)
    return list(zip(got.seqs, got.keys, got.ids, got.salts, got.times_ms, headers, got.values, strict=True))


def expected(body: bytes) -> list[tuple[Any, ...]] | None:
    try:
        return [(e.seq, e.key, e.id, e.salt, e.timestamp_ms, e.headers, e.value) for e in FAST.decode(body)]
    except DecodeError:
        return None


def test_the_schema_of_these_tests_is_decoded_by_column() -> None:
    assert column_decoder(SCHEMA.type) is not None
    body = body_of([("k", None, 0, 1, None, None)] * 3)
    assert FAST.decode_columns(body).arrow is not None


@given(ENTRIES)
def test_columns_hold_what_fastavro_decodes(entries: list[tuple[Any, ...]]) -> None:
    body = body_of(entries)
    assert repr(as_rows(body)) == repr(expected(body))


@given(ENTRIES, st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), max_size=3), st.integers(0, 200))
def test_damaged_bytes_are_refused_or_read_as_fastavro_does(
    entries: list[tuple[Any, ...]], changes: list[tuple[int, int]], cut: int
) -> None:
    body = bytearray(body_of(entries))
    for at, byte in changes:
        body[at % len(body)] = byte
    damaged = bytes(body[: len(body) - cut] if cut < len(body) and cut % 3 == 0 else body)
    assert repr(as_rows(damaged)) == repr(expected(damaged))


@given(ENTRIES, st.binary(min_size=1, max_size=12))
def test_bytes_left_over_are_refused(entries: list[tuple[Any, ...]], more: bytes) -> None:
    assert as_rows(body_of(entries) + more) is None


@given(ENTRIES.filter(bool), st.data())
def test_a_record_cut_out_of_its_aggregate_is_the_same_record(entries: list[tuple[Any, ...]], data: st.DataObject) -> None:
    body = body_of(entries)
    index = data.draw(st.integers(0, len(entries) - 1))
    assert repr(expected(FAST.cut(body, index))) == repr([(expected(body) or [])[index]])


SLOW_OR_WRONG = ["bytes", {"type": "array", "items": "int"}, ["int", "string"], {"type": "map", "values": "int"}]


@pytest.mark.parametrize("kind", SLOW_OR_WRONG, ids=str)
def test_types_that_pyruhvro_is_slow_or_wrong_on_go_to_fastavro(kind: Any) -> None:
    schema = parse_schema(json.dumps({"type": "record", "name": "V", "fields": [{"name": "x", "type": kind}]}))
    assert column_decoder(schema.type) is None
