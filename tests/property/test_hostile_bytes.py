"""Bytes that are not what they claim: decoding ends soon, in little memory, with a value or a DecodeError."""

from __future__ import annotations

import decimal
import io
import json
import subprocess
import sys
import time
import tracemalloc
from typing import Any

import fastavro
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pipeline.errors import DecodeError
from pipeline.schema.avro_types import RECURSION_MAX
from pipeline.schema.decode import AggregateDecoder
from pipeline.schema.encode import EntryEncoder, aggregate_body, compile_encoder
from pipeline.schema.envelope import envelope_text
from pipeline.schema.validate import Limits, has_items_without_bytes, is_recursive, validate
from pipeline.schema.value_schema import ValueSchema, parse_schema
from pipeline.schema.varint import zigzag

property_settings = settings(max_examples=250, deadline=None, database=None, print_blob=True)

HUGE = zigzag(2**63 - 1)


def record(**fields: Any) -> ValueSchema:
    tree = {"type": "record", "name": "R", "fields": [{"name": name, "type": kind} for name, kind in fields.items()]}
    return parse_schema(tree)


EMPTY_RECORD = {"type": "record", "name": "Empty", "fields": [{"name": "nothing", "type": "null"}]}
DECIMAL = {"type": "bytes", "logicalType": "decimal", "precision": 10, "scale": 2}
NODE = record(next=["null", "R"], children={"type": "array", "items": "R"})
SYMBOLS = {"type": "enum", "name": "E", "symbols": ["A", "B", "C"]}
LEAF = {"type": "record", "name": "Leaf", "fields": [{"name": "x", "type": "int"}]}
FLAT = record(
    text="string",
    raw="bytes",
    small="int",
    large="long",
    flag="boolean",
    near="float",
    far="double",
    kind=SYMBOLS,
    maybe=["null", "string"],
    mixed=["null", "int", "string", LEAF],
    fix={"type": "fixed", "name": "F", "size": 3},
    tags={"type": "array", "items": "string"},
    counts={"type": "map", "values": "long"},
    day={"type": "int", "logicalType": "date"},
    when={"type": "long", "logicalType": "timestamp-millis"},
    id={"type": "string", "logicalType": "uuid"},
)
FLAT_VALUE = {
    "text": "häuser",
    "raw": b"\x00\x01",
    "small": -70,
    "large": 1 << 50,
    "flag": True,
    "near": 0.5,
    "far": -2.25,
    "kind": "B",
    "maybe": "yes",
    "mixed": {"x": 1},
    "fix": b"abc",
    "tags": ["a", "bc"],
    "counts": {"k": 3, "l": -4},
    "day": 19_000,
    "when": 1_700_000_000_000,
    "id": "12345678-1234-5678-1234-567812345678",
}
EMPTIES = record(nulls={"type": "array", "items": "null"}, empties={"type": "array", "items": EMPTY_RECORD}, amount=DECIMAL)
EMPTIES_VALUE = {"nulls": [None] * 3, "empties": [{"nothing": None}], "amount": b"\x01\x02"}
NODE_VALUE = {"next": {"next": None, "children": []}, "children": [{"next": None, "children": [{"next": None, "children": []}]}]}
SAMPLES = {"flat": (FLAT, FLAT_VALUE), "empties": (EMPTIES, EMPTIES_VALUE), "node": (NODE, NODE_VALUE)}
NEEDED = {name: AggregateDecoder(schema.text) for name, (schema, _) in SAMPLES.items()}
ALWAYS = {name: AggregateDecoder(schema.text, validation="always") for name, (schema, _) in SAMPLES.items()}
BODIES = {name: compile_encoder(schema)(value) for name, (schema, value) in SAMPLES.items()}


def aggregates() -> tuple[AggregateDecoder, bytes]:
    encoder = EntryEncoder(FLAT)
    rows: list[Any] = [("k", None, 0, 5, None, FLAT_VALUE), ("key", "id", 3, 1 << 40, [("h", b"x"), ("n", None)], None)]
    return AggregateDecoder(envelope_text(FLAT)), aggregate_body((seq, encoder.encode(*row)) for seq, row in enumerate(rows))


AGGREGATE_DECODER, AGGREGATE = aggregates()
# Bytes that mean something where a length, count or index stands.
NASTY = st.one_of(
    st.binary(min_size=1, max_size=3),
    st.sampled_from([b"\x01", b"\xff" * 11, HUGE, zigzag(-(2**63)), zigzag(-1), zigzag(70_000)]),
)
CHANGES = st.lists(st.tuples(st.integers(0, 400), st.integers(0, 3), NASTY), min_size=1, max_size=4)


def mutated(body: bytes, changes: list[tuple[int, int, bytes]]) -> bytes:
    """``body`` with some stretches replaced."""
    for start, removed, added in changes:
        place = start % (len(body) + 1)
        body = body[:place] + added + body[place + removed :]
    return body


def outcome(decode: Any, body: bytes) -> Any:
    """The text of what is decoded (NaN equals NaN there), or DecodeError; any other exception fails the test."""
    try:
        return repr(decode(body))
    except DecodeError:
        return DecodeError


@property_settings
@given(st.sampled_from(sorted(SAMPLES)), CHANGES)
def test_plain_bytes_decode_as_fastavro_does_or_are_refused_when_they_are_damaged(sample: str, changes: Any) -> None:
    body = mutated(BODIES[sample], changes)
    always = outcome(ALWAYS[sample].decode_value, body)
    needed = outcome(NEEDED[sample].decode_value, body)
    if always is not DecodeError:
        assert always == needed == repr(fastavro.schemaless_reader(io.BytesIO(body), SAMPLES[sample][0].parsed, None))


@property_settings
@given(CHANGES)
@example([(0, 1, HUGE)])
@example([(0, 1, zigzag(-(2**63)) + b"\x00")])
def test_aggregate_decodes_or_is_refused_when_it_is_damaged(changes: Any) -> None:
    outcome(AGGREGATE_DECODER.decode, mutated(AGGREGATE, changes))


@property_settings
@given(st.sampled_from(sorted(SAMPLES)), st.binary(max_size=120))
def test_random_bytes_decode_or_are_refused(sample: str, body: bytes) -> None:
    outcome(NEEDED[sample].decode_value, body)
    outcome(ALWAYS[sample].decode_value, body)
    outcome(AGGREGATE_DECODER.decode, body)


@property_settings
@given(st.sampled_from(sorted(SAMPLES)), st.integers(0, 10**6))
def test_bytes_are_refused_when_they_are_cut_anywhere(sample: str, place: int) -> None:
    body = BODIES[sample]
    for decoders in (NEEDED, ALWAYS):
        with pytest.raises(DecodeError, match=r"truncated|more items"):
            decoders[sample].decode_value(body[: place % len(body)])


@property_settings
@given(st.sampled_from(sorted(SAMPLES)), st.binary(min_size=1, max_size=9))
def test_bytes_are_refused_when_more_follow(sample: str, more: bytes) -> None:
    for decoders in (NEEDED, ALWAYS):
        with pytest.raises(DecodeError, match="trailing"):
            decoders[sample].decode_value(BODIES[sample] + more)


STRINGS, NULLS, EMPTY_RECORDS = (record(x={"type": "array", "items": items}) for items in ("string", "null", EMPTY_RECORD))
MAPS = record(x={"type": "map", "values": "null"})
# (schema, bytes, what the pass says; None: decoding refuses it without the pass too, in its own words)
ATTACKS = {
    "a count of 2^63 strings": (STRINGS, HUGE, "more items"),
    "a count of 2^63 nulls": (NULLS, HUGE + b"\x00", "items without bytes"),
    "a negative count of nulls": (NULLS, zigzag(-(2**62)) + b"\x00\x00", "items without bytes"),
    "many blocks of nulls": (NULLS, zigzag(60_000) * 100_000 + b"\x00", "items without bytes"),
    "a count of 2^63 empty records": (EMPTY_RECORDS, HUGE + b"\x00", "items without bytes"),
    "a count of 2^63 map entries": (MAPS, HUGE, "more items"),
    "a string of 2^63 bytes": (record(x="string"), HUGE, "truncated"),
    "a string of -1 bytes": (record(x="string"), b"\x01abc", "negative length"),
    "a decimal of 400 kB": (record(x=DECIMAL), zigzag(400_000) + b"\x55" * 400_000, "decimal"),
    "a decimal of 400 kB of zeros": (record(x=DECIMAL), zigzag(400_000) + b"\x00" * 400_000, "more bytes than its precision"),
    "a decimal above its precision": (record(x=DECIMAL), zigzag(5) + b"\x7f" * 5, "decimal"),
    "a list of 100,000 records": (NODE, b"\x02" * 100_000 + b"\x00\x00" * 100_000, "inside each other"),
    "100,000 arrays inside each other": (NODE, b"\x00\x02" * 100_000, "inside each other"),
    "an index of -1 in a union": (record(x=["null", "int", "string"]), b"\x01", "union"),
    "an index of -1 in an optional": (record(x=["null", "string"]), b"\x01\x02a", "union"),
    "an index of -1 in an enum": (record(x=SYMBOLS), b"\x01", "enum"),
    "an index after the last of an enum": (record(x=SYMBOLS), b"\x06", "enum"),
    "a varint without an end": (record(x="long"), b"\x80" * 1_000_000 + b"\x00", "64 bits"),
    "a long of 65 bits": (record(x="long"), b"\xff" * 9 + b"\x02", "64 bits"),
    "an int of 33 bits": (record(x="int"), zigzag(2**31), "32 bits"),
    "an int of 41 bits": (record(x="int"), zigzag(2**40), "32 bits"),
    "a block with a wrong size": (STRINGS, zigzag(-1) + zigzag(9) + b"\x02a\x00", "another size"),
    "a boolean of 2": (record(x="boolean"), b"\x02", "boolean"),
}
ONLY_BY_THE_PASS = ("an index of -1", "a varint", "a long of", "an int of", "a block with", "a boolean")


@pytest.mark.parametrize("attack", ATTACKS)
def test_hostile_bytes_are_refused_soon_and_in_little_memory(attack: str) -> None:
    schema, body, reason = ATTACKS[attack]
    decoders = [AggregateDecoder(schema.text, validation="always")]
    if not attack.startswith(ONLY_BY_THE_PASS):
        decoders.append(AggregateDecoder(schema.text))
    tracemalloc.start()
    started_s = time.perf_counter()
    try:
        with pytest.raises(DecodeError, match=reason):
            validate(body, schema)
        for decoder in decoders:
            with pytest.raises(DecodeError):
                decoder.decode_value(body)
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert time.perf_counter() - started_s < 3
    assert peak_bytes < 20_000_000


@pytest.mark.parametrize("sample", sorted(SAMPLES))
def test_pass_alone_refuses_bytes_that_go_on_or_end_too_soon(sample: str) -> None:
    schema, body = SAMPLES[sample][0], BODIES[sample]
    validate(body, schema)
    for damaged in (body + b"\x00", body[:-1]):
        with pytest.raises(DecodeError):
            validate(damaged, schema)


@pytest.mark.parametrize("attack", ["a list of 100,000 records", "a count of 2^63 nulls"])
def test_hostile_bytes_are_refused_when_they_are_inside_an_aggregate(attack: str) -> None:
    schema, body, reason = ATTACKS[attack]
    front = EntryEncoder(schema).encode("k", None, 0, 1, None, None)[:-1] + b"\x02"
    with pytest.raises(DecodeError, match=reason):
        AggregateDecoder(envelope_text(schema)).decode(aggregate_body([(0, front + body)]))


def test_recursion_in_fastavro_is_what_the_pass_is_for() -> None:
    """If this fails, fastavro bounds its own recursion now, and the pass may be needed for less."""
    schema, body, _ = ATTACKS["a list of 100,000 records"]
    program = (
        "import io, sys, fastavro, json\n"
        f"schema = fastavro.parse_schema(json.loads({schema.text!r}))\n"
        f"fastavro.schemaless_reader(io.BytesIO(b'\\x02' * {len(body) * 5}), schema, None)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, timeout=60, check=False)
    assert done.returncode < 0, f"expected the process to be killed by a signal, got {done.returncode}: {done.stderr[-300:]!r}"


def test_recursive_value_is_taken_up_to_the_depth_that_the_encoder_takes_it() -> None:
    body = b"\x02" * (RECURSION_MAX - 1) + b"\x00" + b"\x00" * RECURSION_MAX
    value = AggregateDecoder(NODE.text).decode_value(body)
    assert compile_encoder(NODE)(value) == body
    with pytest.raises(DecodeError, match="inside each other"):
        validate(b"\x02" + body + b"\x00", NODE)


def test_blocks_are_read_when_they_carry_their_size() -> None:
    body = zigzag(-2) + zigzag(4) + b"\x02a\x02b" + zigzag(1) + b"\x02c" + b"\x00"
    assert AggregateDecoder(STRINGS.text, validation="always").decode_value(body) == {"x": ["a", "b", "c"]}


def test_body_is_refused_when_it_is_larger_than_the_limit() -> None:
    limits = Limits(body_bytes_max=10)
    schema = record(x="string")
    for validation in ("needed", "always"):
        decoder = AggregateDecoder(schema.text, limits=limits, validation=validation)  # type: ignore[arg-type]
        assert decoder.decode_value(zigzag(9) + b"a" * 9) == {"x": "a" * 9}
        with pytest.raises(DecodeError, match="the limit is 10"):
            decoder.decode_value(zigzag(10) + b"a" * 10)


def test_items_without_bytes_are_read_up_to_the_limit_over_the_whole_body() -> None:
    schema = record(x={"type": "array", "items": "null"}, y={"type": "array", "items": "null"})
    limits = Limits(empty_items_max=10)
    validate(zigzag(5) + b"\x00" + zigzag(5) + b"\x00", schema, limits)
    with pytest.raises(DecodeError, match="items without bytes"):
        validate(zigzag(5) + b"\x00" + zigzag(6) + b"\x00", schema, limits)


@property_settings
@given(st.integers(-(10**12), 10**12), st.booleans())
def test_decimals_are_fastavros_up_to_the_precision_and_refused_above(unscaled: int, as_fixed: bool) -> None:
    kind = DECIMAL | {"type": "fixed", "name": "D", "size": 8} if as_fixed else DECIMAL
    schema = record(x=kind)
    raw = unscaled.to_bytes(8, "big", signed=True)
    body = raw if as_fixed else zigzag(len(raw)) + raw
    if abs(unscaled) < 10**10:
        value = AggregateDecoder(schema.text).decode_value(body)
        assert value == fastavro.schemaless_reader(io.BytesIO(body), schema.parsed, None)
        assert value["x"].as_tuple().exponent == -2
    else:
        with pytest.raises(DecodeError, match="digits"):
            AggregateDecoder(schema.text).decode_value(body)


def test_pass_is_needed_only_where_bytes_can_hurt_fastavro() -> None:
    assert [has_items_without_bytes(s.type) for s in (FLAT, STRINGS, record(x=DECIMAL), MAPS, NODE)] == [False] * 5
    assert all(has_items_without_bytes(schema.type) for schema in (NULLS, EMPTY_RECORDS))
    assert is_recursive(NODE.type)
    assert not is_recursive(FLAT.type)


LEFT = {"type": "record", "name": "Left", "fields": [{"name": "right", "type": ["null", "R"]}, {"name": "n", "type": "int"}]}
WITHIN = [{"name": "of", "type": ["null", "Left"]}, {"name": "kind", "type": SYMBOLS}]
PLAIN = {"type": "record", "name": "Plain", "fields": WITHIN}
TWINS = record(
    left=["null", LEFT],
    plain=PLAIN,
    named={"type": "map", "values": "E"},
    amount=DECIMAL,
    id={"type": "fixed", "name": "Id", "size": 2},
)


def twins(depth: int) -> dict[str, Any]:
    """A value with ``depth`` records of recursive types inside each other."""
    inner = None if depth < 2 else {"right": twins(depth - 2) if depth > 2 else None, "n": depth}
    of = {"right": None, "n": 7} if depth == 5 else None
    plain = {"of": of, "kind": "C"}
    return {"left": inner, "plain": plain, "named": {"a": "B"}, "amount": decimal.Decimal("1.25"), "id": b"ab"}


@pytest.mark.parametrize("depth", [1, 2, 5, RECURSION_MAX - 1, RECURSION_MAX])
def test_records_that_contain_each_other_are_read_as_fastavro_does_up_to_the_bound(depth: int) -> None:
    body = compile_encoder(TWINS)(twins(depth))
    assert AggregateDecoder(TWINS.text).decode_value(body) == twins(depth)
    assert fastavro.schemaless_reader(io.BytesIO(body), TWINS.parsed, None) == twins(depth)


@pytest.mark.parametrize("depth", [RECURSION_MAX + 1, 5_000])
def test_records_that_contain_each_other_are_refused_above_the_bound(depth: int) -> None:
    tail = b"\x00\x04" + b"\x02\x02a\x02\x00" + b"\x02\x7d" + b"ab"  # plain, named, amount, id
    body = b"\x02\x02" * (depth // 2) + (b"\x00" + tail if depth % 2 else b"") + (b"\x0e" + tail) * (depth // 2)
    with pytest.raises(DecodeError, match="inside each other"):
        AggregateDecoder(TWINS.text).decode_value(body)


@pytest.mark.parametrize("reader_text", [json.dumps({"type": "record", "name": "R", "fields": [{"name": "x", "type": "int"}]})])
def test_bytes_are_refused_when_they_do_not_resolve_to_the_readers_schema(reader_text: str) -> None:
    decoder = AggregateDecoder(record(x="string").text, parse_schema(reader_text))
    with pytest.raises(DecodeError, match="reader"):
        decoder.decode_value(b"\x02a")
