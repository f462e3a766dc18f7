"""One reader's schema over all writers' schemas, oldest first: every writer's bytes decode into it, or it is refused."""

from __future__ import annotations

import io
import json
from typing import Any

import fastavro
import pytest

from jobs.reader_schema import fields, reader_schema
from pipeline.errors import SchemaError


def record(*columns: tuple[Any, ...], name: str = "V", namespace: str | None = "n") -> dict[str, Any]:
    found = [{"name": c[0], "type": c[1]} | ({"default": c[2]} if len(c) > 2 else {}) for c in columns]
    return {"type": "record", "name": name, "fields": found} | ({"namespace": namespace} if namespace else {})


def through(writer: dict[str, Any], reader: dict[str, Any], value: dict[str, Any]) -> Any:
    out = io.BytesIO()
    fastavro.schemaless_writer(out, fastavro.parse_schema(json.loads(json.dumps(writer))), value)
    out.seek(0)
    return fastavro.schemaless_reader(out, json.loads(json.dumps(writer)), json.loads(json.dumps(reader)))


def read_all(*versions: dict[str, Any]) -> dict[str, Any]:
    """The reader over versions of which none is refused."""
    reader = reader_schema(versions)
    assert reader.refused == {}
    return reader.tree


def test_columns_are_nullable_and_those_of_older_schemas_stay() -> None:
    old, new = record(("a", "int"), ("gone", "string")), record(("a", "long"), ("b", "string", "x"))
    reader = read_all(old, new)
    assert fields(reader) == ["a", "b", "gone"]
    assert through(old, reader, {"a": 1, "gone": "g"}) == {"a": 1, "b": None, "gone": "g"}
    assert through(new, reader, {"a": 2**40, "b": "y"}) == {"a": 2**40, "b": "y", "gone": None}


@pytest.mark.parametrize(
    ("old", "new", "wider"),
    [("int", "long", "long"), ("int", "double", "double"), ("float", "double", "double"), ("int", "float", "double")],
)
def test_the_wider_number_is_taken_whichever_is_newer(old: str, new: str, wider: str) -> None:
    versions = [record(("a", kind), ("l", ["null", {"type": "array", "items": kind}])) for kind in (old, new)]
    for order in (versions, versions[::-1]):
        a, items = read_all(*order)["fields"]
        assert a["type"] == ["null", wider]
        assert items["type"][1] == {"type": "array", "items": ["null", wider]}


def decimal(precision: int, scale: int, **other: Any) -> dict[str, Any]:
    return {"type": "bytes", "logicalType": "decimal", "precision": precision, "scale": scale} | other


def timed(unit: str, base: str = "long") -> dict[str, Any]:
    return {"type": base, "logicalType": unit}


ENUM = {"type": "enum", "name": "E", "symbols": ["A"]}


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("int", "string"), ("string", "int"), ("string", "bytes"), ("bytes", "string"), ("long", "double"), ("long", "float"),
        (decimal(9, 2), decimal(9, 3)), (decimal(9, 2), "bytes"), ("bytes", decimal(9, 2)),
        (timed("timestamp-millis"), timed("timestamp-micros")), (timed("timestamp-millis"), "long"),
        (timed("time-millis", "int"), timed("time-micros")), ("int", timed("date", "int")),
        (ENUM, "string"), ("string", ENUM), ("int", {"type": "array", "items": "int"}), ("int", ["int", "string"]),
        (["null", "int", "string"], "int"), ({"type": "map", "values": "int"}, {"type": "map", "values": "string"}),
        ({"type": "fixed", "name": "F", "size": 2}, {"type": "fixed", "name": "F", "size": 3}),
        (record(("x", "int"), name="In"), record(("x", "string"), name="In")),
        (record(("x", "int"), name="In"), record(("x", "int"), name="Other")),
        (record(("x", "int"), name="In"), ENUM | {"name": "In"}),
    ],
)  # fmt: skip
def test_a_type_that_a_column_cannot_become_is_refused_and_what_came_before_stands(old: Any, new: Any) -> None:
    versions = [record(("a", old)), record(("a", new), ("b", "int"))]
    reader = reader_schema(versions)
    assert list(reader.refused) == [1]
    assert "n.V.a" in reader.refused[1] or "n.In" in reader.refused[1] or "fixed" in reader.refused[1]
    assert reader.tree == read_all(versions[0])
    after = reader_schema([*versions, record(("a", old), ("c", "int"))])
    assert list(after.refused) == [1]
    assert after.fields == ["a", "c"]


def test_what_says_less_about_its_numbers_is_read_as_it_is() -> None:
    read_all(record(("a", {"type": "string", "logicalType": "uuid"})), record(("a", "string")))
    read_all(record(("a", timed("timestamp-nanos"))), record(("a", "long")))


def test_a_decimal_gets_more_digits() -> None:
    reader = read_all(record(("a", decimal(9, 2))), record(("a", decimal(12, 2))), record(("a", decimal(10, 2))))
    assert reader["fields"][0]["type"][1]["precision"] == 12


def test_nested_records_and_enums_are_merged_by_name() -> None:
    def writer(inner: list[tuple[Any, ...]], symbols: list[str]) -> dict[str, Any]:
        return record(
            ("first", record(*inner, name="Inner")), ("second", ["null", "Inner"], None),
            ("kind", {"type": "enum", "name": "Kind", "symbols": symbols}),
        )  # fmt: skip

    old = writer([("x", "int"), ("was", "string")], ["A", "B"])
    new = writer([("x", "int"), ("y", "int")], ["B", "C"])
    reader = read_all(old, new)
    read = through(old, reader, {"first": {"x": 1, "was": "w"}, "second": {"x": 2, "was": "v"}, "kind": "A"})
    assert read == {"first": {"x": 1, "y": None, "was": "w"}, "second": {"x": 2, "y": None, "was": "v"}, "kind": "A"}
    newer = through(new, reader, {"first": {"x": 1, "y": 5}, "second": None, "kind": "C"})
    assert newer["first"] == {"x": 1, "y": 5, "was": None}


def test_a_nested_field_that_was_nullable_stays_so_for_older_records() -> None:
    def writer(kind: Any) -> dict[str, Any]:
        return record(("in", record(("x", kind), name="In")))

    for versions in ((writer(["null", "int"]), writer("int")), (writer("int"), writer(["int", "null"]))):
        reader = read_all(*versions)
        for version in versions:
            assert through(version, reader, {"in": {"x": 3}}) == {"in": {"x": 3}}
        nullable = next(v for v in versions if isinstance(v["fields"][0]["type"]["fields"][0]["type"], list))
        assert through(nullable, reader, {"in": {"x": None}}) == {"in": {"x": None}}


def renamed(was: str, now: str, kind: Any = "int") -> dict[str, Any]:
    new = record((now, kind))
    new["fields"][0]["aliases"] = [was]
    return new


def test_a_renamed_column_is_not_kept_under_its_old_name_too() -> None:
    versions = [record(("a", "int")), renamed("a", "b", "long"), renamed("b", "c", "long")]
    reader = read_all(*versions)
    assert fields(reader) == ["c"]
    assert [through(v, reader, {n: 1}) for v, n in zip(versions, "abc", strict=True)] == [{"c": 1}] * 3


def test_a_name_that_is_used_again_is_a_column_of_its_own() -> None:
    versions = [record(("a", "int")), renamed("a", "b"), record(("b", "int"), ("a", "int"))]
    reader = read_all(*versions)
    assert sorted(fields(reader)) == ["a", "b"]
    assert not any(one.get("aliases") for one in reader["fields"])  # Java's Avro would read a into b
    assert through(versions[2], reader, {"a": 1, "b": 2}) == {"a": 1, "b": 2}


def test_a_version_met_again_under_another_id_does_not_undo_what_came_after_it() -> None:
    old, new = record(("a", "int")), renamed("a", "b", "long")
    reader = reader_schema([old, new, json.loads(json.dumps(old)), record(("b", "string")), record(("b", "string"))])
    assert reader.fields == ["b"]
    assert [through(v, reader.tree, {n: 1}) for v, n in ((old, "a"), (new, "b"))] == [{"b": 1}] * 2
    assert sorted(reader.refused) == [3, 4]


def test_a_renamed_record_reads_what_was_written_under_its_old_name() -> None:
    old = record(("in", record(("x", "int"), name="In")), name="Old")
    new = record(("in", record(("x", "int"), name="New") | {"aliases": ["In"]}), name="V") | {"aliases": ["Old"]}
    reader = read_all(old, new)
    assert (reader["name"], reader["aliases"]) == ("n.V", ["n.Old"])
    inner = reader["fields"][0]["type"][1]
    assert (inner["name"], inner["aliases"]) == ("n.New", ["n.In"])


def test_what_the_table_cannot_take_is_refused_by_its_reason() -> None:
    reader = reader_schema(
        [record(("a", "int")), record(("a", "int"), ("b", "int"))], lambda tree: "no b" if "b" in fields(tree) else None
    )
    assert (reader.refused, reader.fields) == ({1: "no b"}, ["a"])


def test_a_schema_without_namespace_keeps_its_name() -> None:
    schema = record(("a", "int"), namespace=None)
    assert through(schema, read_all(schema), {"a": 1}) == {"a": 1}


def test_a_type_that_contains_itself_is_refused() -> None:
    recursive = record(("child", ["null", "n.V"], None))
    with pytest.raises(SchemaError, match="contains itself"):
        reader_schema([recursive])
    assert "contains itself" in reader_schema([record(("a", "int")), recursive]).refused[1]


def test_columns_that_differ_in_case_only_are_refused() -> None:
    with pytest.raises(SchemaError, match="upper and lower case"):
        reader_schema([record(("Item", "int"), ("item", "int"))])
    assert list(reader_schema([record(("Item", "int")), record(("item", "int"))]).refused) == [1]
