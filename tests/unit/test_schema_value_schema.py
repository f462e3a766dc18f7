"""What a value schema may be, and what is said of one that may not."""

from __future__ import annotations

import copy
import json
import pickle
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import SchemaError
from pipeline.schema.avro_types import Primitive, Record, walk
from pipeline.schema.value_schema import load_schema, parse_schema


def record(*fields: Any, **more: Any) -> dict[str, Any]:
    return {"type": "record", "name": "R", "fields": [{"name": f"f{n}", "type": kind} for n, kind in enumerate(fields)], **more}


def with_default(kind: Any, default: Any) -> dict[str, Any]:
    return {"type": "record", "name": "R", "fields": [{"name": "f", "type": kind, "default": default}]}


def arrays(levels: int) -> Any:
    kind: Any = "int"
    for _ in range(levels):
        kind = {"type": "array", "items": kind}
    return kind


DECIMAL = {"type": "bytes", "logicalType": "decimal"}
ENUM = {"type": "enum", "name": "E", "symbols": ["A", "B"]}
OTHER = {"type": "record", "name": "S", "fields": [{"name": "x", "type": "int"}]}
BAD: dict[str, tuple[Any, str]] = {
    "not JSON": ("{", "not JSON"),
    "NaN in JSON": ('{"type":"record","name":"R","fields":[],"x":NaN}', "NaN"),
    "the same key twice": ('{"type":"record","name":"R","name":"S","fields":[]}', "same key twice"),
    "a lone surrogate": ('{"type":"record","name":"R","doc":"\\ud800","fields":[]}', "surrogate"),
    "a string": ('"string"', "must be a record"),
    "an enum at the top": (ENUM, "must be a record"),
    "a union at the top": ('["null", "int"]', "must be a record"),
    "no name": ({"type": "record", "fields": []}, 'lacks its "name"'),
    "no fields": ({"type": "record", "name": "R"}, 'list of "fields"'),
    "a name with a space": (record(name="a b"), "not a name"),
    "a namespace with a dash": (record(namespace="a-b"), "not a name"),
    "a field name with a quote": ({**record(), "fields": [{"name": 'a"]', "type": "int"}]}, "valid name"),
    "a field twice": ({**record(), "fields": [{"name": "a", "type": "int"}] * 2}, "'a' is defined twice"),
    "a field without a type": ({**record(), "fields": [{"name": "a"}]}, 'lacks its "type"'),
    "an unknown type": (record("strnig"), "unknown type 'strnig'"),
    "a type used before it is defined": (record("S", OTHER), "unknown type 'S'"),
    "a name twice": (record(OTHER, OTHER), "'S' is defined twice"),
    "its own name inside": (record({**OTHER, "name": "R"}), "'R' is defined twice"),
    "a primitive's name": (record({**OTHER, "name": "string"}), "a type of Avro itself"),
    "a reserved name": (record(name="HeadraceEntry"), "reserved"),
    "a reserved name inside": (record({**ENUM, "name": "HeadraceAggregate"}), "reserved"),
    "a reserved name in a namespace": (record(name="HeadraceHeader", namespace="a.b"), "reserved"),
    "a reserved alias": (record(aliases=["a.HeadraceEntry"]), "reserved"),
    "a union in a union": (record([["null", "int"], "string"]), "union may not hold a union"),
    "a type twice in a union": (record(["int", {"type": "int", "logicalType": "date"}]), "'int' twice"),
    "a named type twice in a union": (record(ENUM, ["E", "E"]), "'E' twice"),
    "an empty union": (record([]), "at least one type"),
    "an enum without symbols": (record({**ENUM, "symbols": []}), "symbols"),
    "a symbol twice": (record({**ENUM, "symbols": ["A", "A"]}), "twice"),
    "an enum with a default that is no symbol": (record({**ENUM, "default": "C"}), "not one of its symbols"),
    "a fixed without a size": (record({"type": "fixed", "name": "F"}), "size"),
    "a fixed of a gigabyte": (record({"type": "fixed", "name": "F", "size": 1 << 30}), "size"),
    "an array without items": (record({"type": "array"}), '"items"'),
    "a map without values": (record({"type": "map"}), '"values"'),
    "a decimal without precision": (record(DECIMAL), "precision"),
    "a scale above the precision": (record({**DECIMAL, "precision": 2, "scale": 3}), "scale"),
    "a decimal too large for its fixed": (
        record({"type": "fixed", "name": "F", "size": 2, "logicalType": "decimal", "precision": 9}),
        "does not fit",
    ),
    "a default of another type": (with_default("int", "x"), "default of the field 'f' of 'R': it is not int"),
    "a boolean default for an int": (with_default("int", True), "it is not int"),
    "a default outside 32 bits": (with_default("int", 2**31), "it is not int"),
    "a default that no branch takes": (with_default(["null", "int"], "x"), "no type of the union"),
    "a default that is no symbol": (with_default(ENUM, "C"), "it is not E"),
    "a record's default without a field": (with_default(OTHER, {}), "it lacks 'x'"),
    "a record's default with a field too many": (with_default(OTHER, {"x": 1, "y": 2}), "no field 'y'"),
    "a default for bytes above U+00FF": (with_default("bytes", "€"), "U\\+00FF"),
    "a default that holds itself": (
        {"type": "record", "name": "R", "fields": [{"name": "f", "type": ["R", "null"], "default": {}}]},
        "default of the field 'f'",
    ),
    "100 levels": (record(arrays(100)), "more than 64 types are nested"),
    "30,000 levels": (
        '{"type":"record","name":"R","fields":[{"name":"f","type":' + '{"type":"array","items":' * 30_000,
        "nested too deep",
    ),
    "100,000 brackets": ("[" * 100_000, "not JSON"),
    "more than 1 MB": (record(doc="x" * 1_000_001), "larger than 1,000,000 bytes"),
    "more than 1 MB in UTF-8": (json.dumps(record(doc="€" * 400_000), ensure_ascii=False), "larger than 1,000,000 bytes"),
}


@pytest.mark.parametrize("what", [name for name in BAD if name != "a default that holds itself"])
def test_schema_is_refused_with_the_reason(what: str) -> None:
    schema, reason = BAD[what]
    with pytest.raises(SchemaError, match=reason):
        parse_schema(schema)


def test_default_that_holds_itself_ends_with_the_branch_that_fits() -> None:
    """The default {} of the record needs the field's default, which is {} again: no end, so no branch takes it."""
    schema, reason = BAD["a default that holds itself"]
    with pytest.raises(SchemaError, match=reason):
        parse_schema(schema)


def test_schema_is_refused_when_references_make_it_deeper_than_its_text() -> None:
    """Each record holds the one before: three levels of text, a hundred of data."""
    inside: list[Any] = [{"type": "record", "name": "R0", "fields": [{"name": "x", "type": "int"}]}]
    inside += [{"type": "record", "name": f"R{n}", "fields": [{"name": "x", "type": f"R{n - 1}"}]} for n in range(1, 100)]
    with pytest.raises(SchemaError, match="more than 64 types are nested"):
        parse_schema(record(*inside))


def test_schema_is_refused_when_references_double_it_at_every_level() -> None:
    """A value of it would take no bytes and 2^40 objects."""
    inside: list[Any] = [{"type": "record", "name": "R0", "fields": []}]
    for n in range(1, 40):
        fields = [{"name": "x", "type": f"R{n - 1}"}, {"name": "y", "type": f"R{n - 1}"}]
        inside.append({"type": "record", "name": f"R{n}", "fields": fields})
    with pytest.raises(SchemaError, match="more than 50,000 types"):
        parse_schema(record(*inside))


def test_schema_of_64_levels_is_taken() -> None:
    assert parse_schema(record(arrays(62))).full_name == "R"


def test_text_is_the_authors_without_spaces_and_in_the_authors_order() -> None:
    written = """{ "name": "R", "type": "record", "namespace": "a.b", "doc": "Flüge, \\"all\\"", "aliases": ["Old"],
                  "fields": [ {"type": "int", "name": "x", "default": 1, "aliases": ["y"], "order": "ignore"} ] }"""
    schema = parse_schema(written)
    assert schema.text == (
        '{"name":"R","type":"record","namespace":"a.b","doc":"Flüge, \\"all\\"","aliases":["Old"],'
        '"fields":[{"type":"int","name":"x","default":1,"aliases":["y"],"order":"ignore"}]}'
    )
    assert schema.full_name == "a.b.R"
    assert parse_schema(schema.text) == schema
    assert parse_schema(json.loads(written)) == schema


@pytest.mark.parametrize(
    ("more", "full_name"),
    [({}, "R"), ({"namespace": "a.b"}, "a.b.R"), ({"name": "c.R", "namespace": "a.b"}, "c.R"), ({"namespace": ""}, "R")],
)
def test_full_name_follows_avros_rules(more: dict[str, str], full_name: str) -> None:
    assert parse_schema(record(**more)).full_name == full_name


def test_names_inside_resolve_in_the_namespace_around_them() -> None:
    schema = parse_schema(record({**OTHER, "namespace": "x"}, "x.S", ENUM, "E", ["null", "a.E"], namespace="a"))
    assert [getattr(f.type, "name", "") for f in schema.type.fields] == ["x.S", "x.S", "a.E", "a.E", ""]


def test_records_that_hold_themselves_are_known() -> None:
    tree = record(
        ["null", {"type": "record", "name": "S", "fields": [{"name": "r", "type": ["null", "R"]}]}], OTHER | {"name": "T"}, "T"
    )
    records = {avro.name: avro.recursive for avro in walk(parse_schema(tree).type) if isinstance(avro, Record)}
    assert records == {"R": True, "S": True, "T": False}


def test_record_is_recursive_when_it_only_refers_to_one_that_leads_back() -> None:
    leads_back = {"type": "record", "name": "S", "fields": [{"name": "r", "type": ["null", "R"]}]}
    through = {"type": "record", "name": "T", "fields": [{"name": "s", "type": ["null", "S"]}]}
    records = {
        avro.name: avro.recursive for avro in walk(parse_schema(record(leads_back, through)).type) if isinstance(avro, Record)
    }
    assert records == {"R": True, "S": True, "T": True}


def test_logical_type_is_ignored_where_it_does_not_belong() -> None:
    schema = parse_schema(record({"type": "string", "logicalType": "date"}, {"type": "int", "logicalType": "unheard-of"}))
    assert all(isinstance(f.type, Primitive) and f.type.logical is None for f in schema.type.fields)


def test_schema_is_equal_to_itself_when_it_was_pickled_or_copied() -> None:
    schema = parse_schema(
        {"type": "record", "name": "R", "fields": [{"name": "a", "type": "int"}, {"name": "b", "type": "int", "default": 1}]}
    )
    for again in (pickle.loads(pickle.dumps(schema)), copy.deepcopy(schema)):
        assert again == schema
        assert hash(again) == hash(schema)
        assert [f.has_default for f in again.type.fields] == [False, True]


def test_file_is_named_in_the_error(tmp_path: Path) -> None:
    path = tmp_path / "flight.avsc"
    with pytest.raises(SchemaError, match=r"flight\.avsc: cannot be read: No such file"):
        load_schema(path)
    path.write_text('{"type": "record", "name": "R"}')
    with pytest.raises(SchemaError, match=r"flight\.avsc: .*fields"):
        load_schema(path)
    path.write_bytes(b"\xff{")
    with pytest.raises(SchemaError, match=r"flight\.avsc: not JSON: not UTF-8"):
        load_schema(path)
    path.write_bytes(b" " * 1_000_001)
    with pytest.raises(SchemaError, match=r"flight\.avsc: larger than"):
        load_schema(path)


def test_file_is_read_when_it_starts_with_a_byte_order_mark(tmp_path: Path) -> None:
    path = tmp_path / "flight.avsc"
    path.write_bytes(b"\xef\xbb\xbf" + json.dumps(record("int")).encode())
    assert load_schema(path).full_name == "R"
