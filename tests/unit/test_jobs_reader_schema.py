"""One reader's schema over all writers' schemas: every writer's bytes decode into it."""

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


def test_columns_are_nullable_and_those_of_older_schemas_stay() -> None:
    old, new = record(("a", "int"), ("gone", "string")), record(("a", "long"), ("b", "string", "x"))
    reader = reader_schema([new, old])
    assert fields(reader) == ["a", "b", "gone"]
    assert through(old, reader, {"a": 1, "gone": "g"}) == {"a": 1, "b": None, "gone": "g"}
    assert through(new, reader, {"a": 2**40, "b": "y"}) == {"a": 2**40, "b": "y", "gone": None}


def test_the_wider_number_is_taken_whichever_is_newer() -> None:
    for order in ((0, 1), (1, 0)):
        writers = [record(("a", "int"), ("l", ["null", {"type": "array", "items": "float"}])),
                   record(("a", "double"), ("l", ["null", {"type": "array", "items": "double"}]))]  # fmt: skip
        reader = reader_schema([writers[index] for index in order])
        assert [one["type"][1] for one in reader["fields"]] == ["double", {"type": "array", "items": "double"}]


def test_nested_records_and_enums_are_merged_by_name() -> None:
    def writer(inner: list[tuple[Any, ...]], symbols: list[str]) -> dict[str, Any]:
        return record(
            ("first", record(*inner, name="Inner")), ("second", ["null", "Inner"], None),
            ("kind", {"type": "enum", "name": "Kind", "symbols": symbols}),
        )  # fmt: skip

    old = writer([("x", "int"), ("was", "string")], ["A", "B"])
    new = writer([("x", "int"), ("y", "int")], ["B", "C"])
    reader = reader_schema([new, old])
    read = through(old, reader, {"first": {"x": 1, "was": "w"}, "second": {"x": 2, "was": "v"}, "kind": "A"})
    assert read == {"first": {"x": 1, "y": None, "was": "w"}, "second": {"x": 2, "y": None, "was": "v"}, "kind": "A"}
    newer = through(new, reader, {"first": {"x": 1, "y": 5}, "second": None, "kind": "C"})
    assert newer["first"] == {"x": 1, "y": 5, "was": None}


def test_a_renamed_column_is_not_kept_under_its_old_name_too() -> None:
    new = record(("b", "int"))
    new["fields"][0]["aliases"] = ["a"]
    assert fields(reader_schema([new, record(("a", "int"))])) == ["b"]


def test_a_schema_without_namespace_keeps_its_name() -> None:
    schema = record(("a", "int"), namespace=None)
    assert through(schema, reader_schema([schema]), {"a": 1}) == {"a": 1}


def test_a_type_that_contains_itself_is_refused() -> None:
    with pytest.raises(SchemaError, match="contains itself"):
        reader_schema([record(("child", ["null", "n.V"], None))])


def test_columns_that_differ_in_case_only_are_refused() -> None:
    with pytest.raises(SchemaError, match="upper and lower case"):
        reader_schema([record(("Item", "int"), ("item", "int"))])
