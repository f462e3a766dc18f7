"""What the encoder takes, what it refuses, and how it says so."""

from __future__ import annotations

import array
import collections
import datetime
import decimal
import enum
import io
import math
import time
import types
import uuid
from typing import Any

import fastavro
import pytest

from pipeline.errors import SchemaMismatchError
from pipeline.schema.avro_types import RECURSION_MAX
from pipeline.schema.decode import AggregateDecoder
from pipeline.schema.encode import EntryEncoder, aggregate_body, compile_encoder, zigzag
from pipeline.schema.value_schema import ValueSchema, parse_schema


def record(**fields: Any) -> ValueSchema:
    tree = {"type": "record", "name": "R", "fields": [{"name": name, "type": kind} for name, kind in fields.items()]}
    return parse_schema(tree)


def with_defaults(**fields: tuple[Any, Any]) -> ValueSchema:
    listed = [{"name": name, "type": kind, "default": default} for name, (kind, default) in fields.items()]
    return parse_schema({"type": "record", "name": "R", "fields": listed})


def encode(kind: Any, value: Any) -> bytes:
    """The bytes of one field of a type."""
    return compile_encoder(record(x=kind))({"x": value})


def refusal(schema: ValueSchema, value: Any) -> tuple[str, str]:
    with pytest.raises(SchemaMismatchError) as caught:
        compile_encoder(schema)(value)
    return caught.value.field, caught.value.reason


ENUM = {"type": "enum", "name": "E", "symbols": ["A", "B"]}
FIXED = {"type": "fixed", "name": "F", "size": 2}
PILOT = {"type": "record", "name": "Pilot", "fields": [{"name": "name", "type": "string"}, {"name": "age", "type": "int"}]}
TREE = parse_schema(
    {
        "type": "record",
        "name": "Tree",
        "fields": [{"name": "next", "type": ["null", "Tree"]}, {"name": "n", "type": "int", "default": 0}],
    }
)
DATE, TIME, MICROS = (
    {"type": t, "logicalType": n} for t, n in (("int", "date"), ("int", "time-millis"), ("long", "timestamp-micros"))
)
MILLIS, NANOS = ({"type": "long", "logicalType": f"timestamp-{unit}"} for unit in ("millis", "nanos"))
DECIMAL = {"type": "bytes", "logicalType": "decimal", "precision": 5, "scale": 2}
FIXED_DECIMAL = {"type": "fixed", "name": "D", "size": 4, "logicalType": "decimal", "precision": 5, "scale": 2}
UUID = {"type": "string", "logicalType": "uuid"}
UUID_BYTES = {"type": "fixed", "name": "U", "size": 16, "logicalType": "uuid"}
DURATION = {"type": "fixed", "name": "P", "size": 12, "logicalType": "duration"}
SECRET = "secret-4711"

WRONG: list[tuple[Any, Any, str]] = [
    ("int", "5", "expected int, found str"),
    ("int", True, "expected int, found bool"),
    ("int", 1.0, "expected int, found float"),
    ("int", None, "expected int, found null"),
    ("int", 2**31, "does not fit into 32 bits"),
    ("int", -(2**31) - 1, "does not fit into 32 bits"),
    ("long", 2**63, "does not fit into 64 bits"),
    ("long", 10**400, "does not fit into 64 bits"),
    ("double", 10**400, "too large for a double"),
    ("double", "1", "expected double, found str"),
    ("double", True, "expected double, found bool"),
    ("double", decimal.Decimal(1), "expected double, found Decimal"),
    ("float", 1e39, "too large for 32 bits"),
    ("boolean", 1, "expected boolean, found int"),
    ("null", 0, "expected null, found int"),
    ("string", b"a", "expected string, found bytes"),
    ("string", "a\ud800", "lone surrogate"),
    ("bytes", "a", "expected bytes, found str"),
    ("bytes", [1], "expected bytes, found list"),
    (FIXED, b"abc", "expected 2 bytes (fixed F), found 3"),
    (FIXED, "ab", "found str"),
    (ENUM, SECRET, "expected one of the symbols of the enum E"),
    (ENUM, 0, "expected enum E, found int"),
    ({"type": "array", "items": "int"}, "12", "expected array, found str"),
    ({"type": "array", "items": "int"}, b"12", "expected array, found bytes"),
    ({"type": "array", "items": "int"}, {1, 2}, "expected array, found set"),
    ({"type": "map", "values": "int"}, [("a", 1)], "expected map, found list"),
    (PILOT, [SECRET, 1], "expected record Pilot, found list"),
    (["null", "int"], SECRET, "expected int, found str"),
    (["null", "int", "string"], 1.5, "expected null or int or string, found float"),
    (["null", "int", "string"], 2**40, "does not fit into 32 bits"),
    (DATE, "2024-01-01", "expected date or int (date), found str"),
    (DATE, 10**8, "found a number outside"),
    (TIME, -1, "found a number outside"),
    (TIME, 86_400_000, "found a number outside"),
    (MILLIS, 2**62, "found a number outside"),
    (MILLIS, 1.5, "expected datetime or int (timestamp-millis), found float"),
    (MILLIS, True, "found bool"),
    (NANOS, datetime.datetime(2300, 1, 1, tzinfo=datetime.UTC), "found a number outside"),
    (DECIMAL, decimal.Decimal("1.234"), "3 digits after the point"),
    (DECIMAL, decimal.Decimal("1234"), "more than 3 digits before the point"),
    (DECIMAL, decimal.Decimal("1E+1000000000"), "more than 3 digits before the point"),
    (DECIMAL, decimal.Decimal("NaN"), "not finite"),
    (DECIMAL, decimal.Decimal("-Infinity"), "not finite"),
    (DECIMAL, 1.5, "expected Decimal (decimal(5, 2)), found float"),
    (DECIMAL, b"", "wrong length"),
    (DECIMAL, b"\x7f" * 4, "more digits"),
    (DECIMAL, b"\x00" * 1000, "wrong length"),
    (FIXED_DECIMAL, decimal.Decimal("1234"), "more than 3 digits before the point"),
    (FIXED_DECIMAL, b"\x00" * 5, "wrong length"),
    (UUID, SECRET, "a string that is a UUID"),
    (UUID, 5, "expected UUID or string (uuid), found int"),
    (UUID_BYTES, b"\x00", "expected UUID or 16 bytes"),
    (DURATION, b"\x00", "expected 12 bytes"),
]


@pytest.mark.parametrize(("kind", "value", "reason"), WRONG)
def test_value_is_refused_with_field_and_reason_and_without_its_content(kind: Any, value: Any, reason: str) -> None:
    field, said = refusal(record(x=kind), {"x": value})
    assert field == "x"
    assert reason in said
    assert SECRET not in said


def test_path_leads_to_the_place_when_the_value_is_nested() -> None:
    schema = record(
        pilot=PILOT,
        crew={"type": "array", "items": "Pilot"},
        seats={"type": "map", "values": ["null", "Pilot"]},
        other=["null", "int", {"type": "record", "name": "Plane", "fields": [{"name": "captain", "type": "Pilot"}]}],
    )
    good: dict[str, Any] = {"pilot": {"name": "a", "age": 1}, "crew": [], "seats": {}, "other": None}
    bad = {"name": "a", "age": "1"}
    assert compile_encoder(schema)(good)
    assert refusal(schema, {**good, "pilot": bad}) == ("pilot.age", "expected int, found str")
    assert refusal(schema, {**good, "crew": [good["pilot"], bad]})[0] == "crew[1].age"
    assert refusal(schema, {**good, "seats": {"1a": None, SECRET: bad}})[0] == "seats[1].age"
    assert refusal(schema, {**good, "other": {"captain": bad}})[0] == "other.captain.age"
    assert refusal(schema, {**good, "seats": {1: None}}) == ("seats[0]", "the key of a map: expected string, found int")
    assert refusal(schema, "x") == ("", "expected record R, found str")


def test_field_is_refused_when_the_schema_does_not_have_it() -> None:
    schema = with_defaults(a=("int", 1), b=("int", 2))
    assert refusal(schema, {"a": 1, "b": 2, "c": 3}) == ("c", "no such field in the schema")
    # As many keys as fields: only the names tell.
    assert refusal(schema, {"a": 1, "c": 3}) == ("c", "no such field in the schema")
    assert refusal(schema, {"c": 3}) == ("c", "no such field in the schema")
    assert refusal(schema, {5: 3}) == ("(int)", "no such field in the schema")
    assert refusal(record(p=PILOT), {"p": {"name": "a", "age": 1, "x": 1}}) == ("p.x", "no such field in the schema")


def test_field_is_refused_when_it_is_missing_without_a_default() -> None:
    reason = "missing, and the schema has no default for it"
    assert refusal(record(a="int", b=["null", "int"]), {"a": 1}) == ("b", reason)
    assert refusal(record(a="int"), collections.defaultdict(int)) == ("a", reason)


def test_missing_fields_are_written_as_their_defaults() -> None:
    inner = {
        "type": "record",
        "name": "I",
        "fields": [{"name": "x", "type": "int", "default": 7}, {"name": "y", "type": "bytes"}],
    }
    schema = with_defaults(
        number=("long", 1 << 40),
        text=("string", "ä"),
        raw=("bytes", "\u00ff\u0000"),
        fixed=(FIXED, "ab"),
        kind=(ENUM, "B"),
        nothing=(["null", "int"], None),
        second=(["null", "int"], 5),
        items=({"type": "array", "items": "int"}, [1, 2]),
        pairs=({"type": "map", "values": "string"}, {"k": "v"}),
        inner=(inner, {"y": "z"}),
        far=("double", "NaN"),
        whole=("double", 3),
        when=(MILLIS, 1000),
        amount=(DECIMAL, "\u0001\u0002"),
    )
    decoded = AggregateDecoder(schema.text).decode_value(compile_encoder(schema)({}))
    assert math.isnan(decoded.pop("far"))
    assert decoded == {
        "number": 1 << 40,
        "text": "ä",
        "raw": b"\xff\x00",
        "fixed": b"ab",
        "kind": "B",
        "nothing": None,
        "second": 5,
        "items": [1, 2],
        "pairs": {"k": "v"},
        "inner": {"x": 7, "y": b"z"},
        "whole": 3.0,
        "when": datetime.datetime(1970, 1, 1, 0, 0, 1, tzinfo=datetime.UTC),
        "amount": decimal.Decimal("2.58"),
    }


class Color(enum.StrEnum):
    A = "B"


class Size(enum.IntEnum):
    LARGE = 3


@pytest.mark.parametrize(
    ("kind", "value", "same_as"),
    [
        ("int", Size.LARGE, 3),
        ("string", Color.A, "B"),
        (ENUM, Color.A, "B"),
        ("bytes", bytearray(b"ab"), b"ab"),
        ("bytes", memoryview(b"ab"), b"ab"),
        (FIXED, bytearray(b"ab"), b"ab"),
        ("double", 3, 3.0),
        ("float", 3, 3.0),
        ({"type": "array", "items": "int"}, (1, 2), [1, 2]),
        ({"type": "array", "items": "int"}, range(1, 3), [1, 2]),
        ({"type": "array", "items": "int"}, array.array("i", [1, 2]), [1, 2]),
        (["null", {"type": "array", "items": "int"}], (1, 2), [1, 2]),
        ({"type": "map", "values": "int"}, types.MappingProxyType({"a": 1}), {"a": 1}),
        (PILOT, types.MappingProxyType({"name": "a", "age": 1}), {"name": "a", "age": 1}),
        (PILOT, collections.OrderedDict(age=1, name="a"), {"name": "a", "age": 1}),
        (UUID, uuid.UUID(int=5), str(uuid.UUID(int=5))),
        (UUID_BYTES, uuid.UUID(int=5), uuid.UUID(int=5).bytes),
        (DATE, datetime.date(1970, 1, 3), 2),
        (TIME, datetime.time(0, 0, 1, 5999), 1005),
        (MILLIS, datetime.datetime(1970, 1, 1, 0, 0, 1, 5999, datetime.UTC), 1005),
        (MILLIS, datetime.datetime(1969, 12, 31, 23, 59, 59, 999_000, datetime.UTC), -1),
        (MICROS, datetime.datetime(1970, 1, 1, 1, tzinfo=datetime.timezone(datetime.timedelta(hours=1))), 0),
        (NANOS, datetime.datetime(1970, 1, 1, 0, 0, 0, 7, datetime.UTC), 7000),
        (DECIMAL, decimal.Decimal("-1.28"), b"\xff\x80"),
        (DECIMAL, decimal.Decimal("1E+2"), b"\x27\x10"),
        (DECIMAL, decimal.Decimal("0E+1000000000"), b"\x00"),
        (FIXED_DECIMAL, decimal.Decimal("-0.01"), b"\xff\xff\xff\xff"),
        # fastavro writes -2 here.
        (FIXED_DECIMAL, decimal.Decimal("-0"), b"\x00\x00\x00\x00"),
    ],
)
def test_value_is_written_like_the_plain_one_when_it_is_of_a_kindred_type(kind: Any, value: Any, same_as: Any) -> None:
    assert encode(kind, value) == encode(kind, same_as)


def test_numbers_that_are_not_numbers_are_written() -> None:
    for kind in ("float", "double"):
        for value in (math.nan, math.inf, -math.inf, -0.0):
            decoded = AggregateDecoder(record(x=kind).text).decode_value(encode(kind, value))["x"]
            assert str(decoded) == str(value)


RECORDS = [
    {"type": "record", "name": "A", "fields": [{"name": "x", "type": "int"}]},
    {"type": "record", "name": "B", "fields": [{"name": "x", "type": "int"}, {"name": "y", "type": "int", "default": 0}]},
]


@pytest.mark.parametrize(
    ("union", "value", "branch"),
    [
        (["null", "int", "string"], None, 0),
        (["null", "int", "string"], "a", 2),
        (["int", "long"], 5, 0),
        (["int", "long"], 2**40, 1),
        (["float", "double"], 1.5, 1),
        (["float", "int"], 5, 0),
        (["long", "double"], 2**70, 1),
        (["double", "long"], 5, 0),
        (["null", *RECORDS], {"x": 1}, 1),
        (["null", *RECORDS], {"x": 1, "y": 2}, 2),
        (["null", *RECORDS], ("B", {"x": 1}), 2),
        (["null", "int", "long"], ("long", 5), 2),
        (["null", RECORDS[0]], ("A", {"x": 1}), 1),
        ([*RECORDS, {"type": "map", "values": "int"}], {"x": 1, "z": 2}, 2),
        ([ENUM, "string"], "B", 0),
        ([ENUM, "string"], "C", 1),
        ([MILLIS, "string"], datetime.datetime(2024, 1, 1, tzinfo=datetime.UTC), 0),
    ],
)
def test_branch_of_a_union_is_chosen_as_fastavro_chooses(union: Any, value: Any, branch: int) -> None:
    schema = record(x=union)
    out = io.BytesIO()
    fastavro.schemaless_writer(out, schema.parsed, {"x": value})
    assert compile_encoder(schema)({"x": value}) == out.getvalue()
    assert out.getvalue()[:1] == zigzag(branch)


def test_pair_of_name_and_value_is_never_taken_for_an_array() -> None:
    strings = {"type": "array", "items": "string"}
    assert refusal(record(x=["null", strings]), {"x": ("array", "ab")}) == ("x", "expected array, found str")
    assert encode(["null", strings], ("array", ["ab"])) == encode(["null", strings], ["ab"])


def chain(length: int, last: Any = None) -> Any:
    value = last
    for _ in range(length):
        value = {"next": value}
    return value


def test_recursive_value_is_taken_up_to_the_depth_that_is_read_again() -> None:
    encoded = compile_encoder(TREE)(chain(RECURSION_MAX))
    assert AggregateDecoder(TREE.text).decode_value(encoded)
    assert "nested inside each other" in refusal(TREE, chain(RECURSION_MAX + 1))[1]
    assert refusal(TREE, chain(RECURSION_MAX, {"next": 1}))[1]
    endless: dict[str, Any] = {}
    endless["next"] = endless
    assert "nested inside each other" in refusal(TREE, endless)[1]


def test_nested_unions_of_alike_records_take_no_exponential_time() -> None:
    """Without the memory of what fits, each level doubles the time: 40 levels would take days."""
    left = {"type": "record", "name": "L", "fields": [{"name": "next", "type": ["null", "R", "L", "int"]}]}
    tree = parse_schema({"type": "record", "name": "R", "fields": [{"name": "next", "type": ["null", left, "R", "int"]}]})
    started_s = time.perf_counter()
    assert refusal(tree, chain(40, last="no int"))[0]
    assert compile_encoder(tree)(chain(40, last=5))
    assert time.perf_counter() - started_s < 5


def test_names_are_never_code_when_they_look_like_it() -> None:
    """Field names are checked by the parser; symbols, defaults and namespaces go in as objects."""
    schema = with_defaults(
        **{"__import__": ("string", "'); raise SystemExit #"), "def_": ("int", 1), "lambda": ("int", 2), "None": ("int", 3)}
    )
    decoded = AggregateDecoder(schema.text).decode_value(compile_encoder(schema)({"lambda": 9}))
    assert decoded == {"__import__": "'); raise SystemExit #", "def_": 1, "lambda": 9, "None": 3}


def test_record_of_many_fields_and_levels_is_encoded() -> None:
    kind: Any = "int"
    value: Any = 5
    for level in range(60):
        kind = {"type": "record", "name": f"N{level}", "fields": [{"name": "x", "type": kind}]}
        value = {"x": value}
    fields = {f"f{n}": "int" for n in range(1000)}
    assert compile_encoder(record(x=kind, **fields))({"x": value, **dict.fromkeys(fields, 1)}) == b"\x0a" + b"\x02" * 1000


def test_callers_value_is_not_changed() -> None:
    schema = with_defaults(a=("int", 1), b=({"type": "array", "items": "int"}, []))
    value: dict[str, Any] = {"a": 1}
    compile_encoder(schema)(value)
    assert value == {"a": 1}


# -- entries ----------------------------------------------------------------------------------------------------------

VALUE = record(x="int")


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ((5, None, 0, 0, None, None), "the partition key must be a string, found int"),
        ((None, None, 0, 0, None, None), "the partition key must be a string, found NoneType"),
        (("a\udc00", None, 0, 0, None, None), "the partition key holds a lone surrogate"),
        (("k", 5, 0, 0, None, None), "the dedup id must be a string, found int"),
        (("k", None, 1.5, 0, None, None), "the salt must be an int, found float"),
        (("k", None, 2**31, 0, None, None), "the salt does not fit into 32 bits"),
        (("k", None, 0, 1.5, None, {"x": 1}), "the timestamp must be an int"),
        (("k", None, 0, 2**62, None, {"x": 1}), "the timestamp must be an int"),
        (("k", None, 0, 0, [(5, b"")], None), "the name of a header must be a string, found int"),
        (("k", None, 0, 0, [("h", "text")], None), "the value of a header must be bytes or None, found str"),
    ],
)
def test_entry_is_refused_with_the_reason(arguments: Any, reason: str) -> None:
    with pytest.raises(SchemaMismatchError, match=reason) as caught:
        EntryEncoder(VALUE).encode(*arguments)
    assert caught.value.field == ""


def test_entry_names_the_field_when_its_value_does_not_fit() -> None:
    with pytest.raises(SchemaMismatchError) as caught:
        EntryEncoder(VALUE).encode("k", "id", 1, 0, None, {"x": "5"})
    assert (caught.value.field, caught.value.reason) == ("x", "expected int, found str")


def test_keys_are_encoded_rightly_when_there_are_more_than_are_kept() -> None:
    encoder = EntryEncoder(VALUE)
    for n in range(40_000):
        assert encoder.encode(f"key-{n}", None, 0, n, None, None)[1:].startswith(b"key-%d\x00" % n)
    for key in ("abc", "abcd", "ab", "abc", "abcd", "ab"):
        assert encoder.encode(key, None, 0, 0, None, None) == zigzag(len(key)) + key.encode() + b"\x00" * 5
    long = "ä" * 5_000_000
    assert encoder.encode(long, None, 0, 0, None, None).startswith(zigzag(10_000_000) + b"\xc3\xa4")
    assert encoder.encode("", None, 0, 0, None, None) == b"\x00" * 6


def test_aggregate_holds_entries_in_their_order_with_their_sequences() -> None:
    encoder = EntryEncoder(VALUE)
    entries = [(seq, encoder.encode("k", None, 0, 0, None, {"x": seq})) for seq in (0, 1, 5, 70_000)]
    assert aggregate_body(entries) == zigzag(4) + b"".join(zigzag(seq) + entry for seq, entry in entries) + b"\x00"


@pytest.mark.parametrize("number", [0, 1, -1, 63, 64, 8191, 8192, -8192, -8193, 2**27, 2**41, 2**55, 2**62, 2**63 - 1, -(2**63)])
def test_zigzag_is_what_fastavro_writes(number: int) -> None:
    out = io.BytesIO()
    fastavro.schemaless_writer(out, "long", number)
    assert zigzag(number) == out.getvalue()


def test_zigzag_refuses_what_does_not_fit() -> None:
    for number in (2**63, -(2**63) - 1):
        with pytest.raises(OverflowError):
            zigzag(number)


@pytest.mark.parametrize("unit", ["millis", "micros", "nanos"])
def test_a_datetime_says_its_time_zone_where_it_is_a_point_in_time_and_only_there(unit: str) -> None:
    naive, aware = datetime.datetime(2020, 1, 1), datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)
    for name, good, bad, words in (
        (f"timestamp-{unit}", aware, naive, "with its time zone"),
        (f"local-timestamp-{unit}", naive, aware, "without time zone"),
    ):
        field = {"name": "at", "type": {"type": "long", "logicalType": name}}
        encode = compile_encoder(parse_schema({"type": "record", "name": "R", "fields": [field]}))
        assert encode({"at": good})
        with pytest.raises(SchemaMismatchError, match=words) as caught:
            encode({"at": bad})
        assert caught.value.field == "at"
        assert "2020" not in str(caught.value)


@pytest.mark.parametrize("around", [0, 1 << 6, 1 << 12, 1 << 13, 1 << 14, 1 << 20, 1 << 27, 1 << 41, 1 << 62, (1 << 63) - 3])
def test_longs_around_every_change_of_method_are_fastavros_bytes(around: int) -> None:
    schema = parse_schema({"type": "record", "name": "R", "fields": [{"name": "n", "type": "long"}]})
    encode = compile_encoder(schema)
    for number in {sign * (around + step) for sign in (1, -1) for step in range(-2, 3)}:
        out = io.BytesIO()
        fastavro.schemaless_writer(out, schema.parsed, {"n": number})
        assert encode({"n": number}) == out.getvalue(), number


@pytest.mark.parametrize("number", [1 << 63, -(1 << 63) - 1, 1 << 64, -(1 << 64), -(1 << 64) - 1, 3 << 90, -(1 << 126), 1 << 300])
def test_a_long_outside_64_bits_is_refused(number: int) -> None:
    schema = parse_schema({"type": "record", "name": "R", "fields": [{"name": "n", "type": "long"}]})
    with pytest.raises(SchemaMismatchError, match="64"):
        compile_encoder(schema)({"n": number})


@pytest.mark.parametrize("more", [(None, 0, None), ("id", 3, [("h", b"x")])])
@pytest.mark.parametrize("raw", [b"", b"abc", b"x" * 100_000])
def test_bytes_go_as_they_are_where_the_schema_is_one_field_of_bytes(raw: bytes, more: tuple[Any, int, Any]) -> None:
    encoder = EntryEncoder(record(x="bytes"))
    id, salt, headers = more
    entry = encoder.encode("k", id, salt, 5, headers, raw)
    assert entry == encoder.encode("k", id, salt, 5, headers, {"x": raw})
    assert entry.endswith(zigzag(len(raw)) + raw)


WHOLE = {"type": "bytes", "logicalType": "decimal", "precision": 4}


@pytest.mark.parametrize("fields", [{"x": "bytes", "y": "int"}, {"x": "string"}, {"x": ["null", "bytes"]}, {"x": WHOLE}])
def test_bytes_alone_are_refused_by_any_other_schema(fields: dict[str, Any]) -> None:
    with pytest.raises(SchemaMismatchError):
        EntryEncoder(record(**fields)).encode("k", None, 0, 5, None, b"abc")
