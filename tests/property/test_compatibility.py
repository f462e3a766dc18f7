"""Compatibility: PyPI's ``avro`` is the judge of random pairs; what it misses is judged by examples."""

from __future__ import annotations

import contextlib
import copy
import json
import random
import warnings
from typing import Any

import avro.compatibility
import avro.schema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import SchemaError
from pipeline.schema.avro_tree import Node, parse_tree
from pipeline.schema.canonical import canonical_text, normalized_text
from pipeline.schema.compatibility import Level, can_read, check
from pipeline.schema.default_values import check_defaults, fits

PRIMITIVES = ["null", "boolean", "int", "long", "float", "double", "bytes", "string"]
DEFAULTS: dict[str, Any] = {
    "null": None,
    "boolean": True,
    "int": 1,
    "long": 2,
    "float": 1.5,
    "double": 2.5,
    "bytes": "x",
    "string": "y",
}


def parse(schema: Any) -> Node:
    return parse_tree(schema if isinstance(schema, str) else json.dumps(schema)).root


class Maker:
    """Random schemas, small enough to be alike: names come from a short list and may be used again."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.names: list[str] = []
        self.count = 0

    def make(self, depth: int = 0, *, union: bool = True) -> Any:
        pick = self.random.random()
        if depth > 3 or pick < 0.35:
            return self.random.choice(PRIMITIVES)
        if pick < 0.42 and self.names:
            return self.random.choice(self.names)
        if pick < 0.5:
            return {"type": "array", "items": self.make(depth + 1)}
        if pick < 0.58:
            return {"type": "map", "values": self.make(depth + 1)}
        if pick < 0.68 and union:
            return self.union(depth)
        if pick < 0.76:
            symbols = self.random.sample(["A", "B", "C"], self.random.randint(1, 3))
            enum: dict[str, Any] = {"type": "enum", "name": self.name("E"), "symbols": symbols}
            return enum | ({"default": symbols[0]} if self.random.random() < 0.3 else {})
        if pick < 0.82:
            return {"type": "fixed", "name": self.name("F"), "size": self.random.randint(1, 2)}
        return self.record(depth)

    def name(self, letter: str) -> str:
        self.count += 1
        name = f"{letter}{self.count}"
        self.names.append(name)
        return name

    def union(self, depth: int) -> list[Any]:
        branches: dict[str, Any] = {}
        for _ in range(self.random.randint(1, 4)):
            branch = self.make(depth + 1, union=False)
            branches.setdefault(branch if isinstance(branch, str) else branch.get("name", branch["type"]), branch)
        return list(branches.values())

    def record(self, depth: int) -> dict[str, Any]:
        record: dict[str, Any] = {"type": "record", "name": self.name("R")}
        fields = []
        for name in self.random.sample("abcd", self.random.randint(0, 3)):
            field: dict[str, Any] = {"name": name, "type": self.make(depth + 1)}
            kind = field["type"]
            if isinstance(kind, str) and kind in DEFAULTS and self.random.random() < 0.4:
                field["default"] = DEFAULTS[kind]
            if self.random.random() < 0.15:
                field["aliases"] = [self.random.choice("abcd")]
            fields.append(field)
        return record | {"fields": fields} | ({"aliases": ["R1", "R2"]} if self.random.random() < 0.1 else {})

    def change(self, schema: Any) -> Any:
        """A schema that differs a little, as evolutions do."""
        schema = copy.deepcopy(schema)
        places = [place for place in _objects(schema) if place.get("type") in ("record", "enum", "fixed", "array", "map")]
        for place in self.random.sample(places, min(len(places), self.random.randint(1, 2))):
            if place["type"] == "record" and place["fields"] and self.random.random() < 0.5:
                self.change_fields(place["fields"])
            elif place["type"] == "record":
                unused = [n for n in "abcdef" if n not in {f["name"] for f in place["fields"]}]
                place["fields"].append(
                    {"name": self.random.choice(unused), "type": "int", **self.random.choice([{}, {"default": 1}])}
                )
            elif place["type"] == "enum":
                place["symbols"] = self.random.choice([place["symbols"][:1], [*place["symbols"], "Z"]])
                place.pop("default", None)
            elif place["type"] == "fixed":
                place["size"] += self.random.randint(0, 1)
            else:
                key = "items" if place["type"] == "array" else "values"
                if isinstance(place[key], str):
                    place[key] = self.random.choice(PRIMITIVES)
        return schema

    def change_fields(self, fields: list[dict[str, Any]]) -> None:
        i = self.random.randrange(len(fields))
        if self.random.random() < 0.4 and not _objects(fields[i]["type"]):
            del fields[i]
        elif isinstance(fields[i]["type"], str):
            fields[i] = {
                "name": fields[i]["name"],
                "type": self.random.choice([*PRIMITIVES, ["null", "string"], ["int", "null"]]),
            }


def _objects(schema: Any) -> list[dict[str, Any]]:
    if isinstance(schema, list):
        return [found for one in schema for found in _objects(one)]
    if not isinstance(schema, dict):
        return []
    inner = [f["type"] for f in schema.get("fields", [])] + [schema[k] for k in ("items", "values") if k in schema]
    return [schema, *_objects(inner)]


def judged_by_avro(reader: str, writer: str) -> bool:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        checker = avro.compatibility.ReaderWriterCompatibilityChecker()
        result = checker.get_compatibility(avro.schema.parse(reader), avro.schema.parse(writer))
    return bool(result.compatibility is avro.compatibility.SchemaCompatibilityType.compatible)


@settings(max_examples=1_500, deadline=None)
@given(st.integers(0, 2**32), st.booleans())
def test_the_verdict_is_that_of_pypis_avro(seed: int, related: bool) -> None:
    maker = Maker(seed)
    one = maker.make()
    other = maker.change(one) if related else Maker(seed + 1).make()
    try:
        texts = [canonical_text(parse_tree(json.dumps(schema))) for schema in (one, other)]
    except SchemaError:
        return  # the change took a type away that is used elsewhere
    trees = [parse(text) for text in texts]
    for reader, writer in ((0, 1), (1, 0)):
        found = can_read(trees[reader], trees[writer])
        assert (not found) == judged_by_avro(texts[reader], texts[writer]), (texts[reader], texts[writer], found)


@settings(max_examples=400, deadline=None)
@given(st.integers(0, 2**32))
def test_canonical_text_is_stable_and_reads_itself(seed: int) -> None:
    text = json.dumps(Maker(seed).make())
    tree = parse_tree(text)
    once = canonical_text(tree)
    assert canonical_text(parse_tree(once)) == once
    assert normalized_text(parse_tree(once)) == normalized_text(tree)
    assert can_read(parse(once), tree.root) == []
    assert avro.schema.parse(once) == avro.schema.parse(text)


@settings(max_examples=300, deadline=None)
@given(
    st.text(max_size=80)
    | st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["type", "name", "fields", "items", "symbols"]), inner)
        ),
        max_leaves=20,
    ).map(json.dumps)
)
def test_whatever_is_not_a_schema_is_refused_as_one(text: str) -> None:
    with contextlib.suppress(SchemaError):  # nothing else may come out
        check_defaults(parse_tree(text).root)


def field(kind: Any, **more: Any) -> dict[str, Any]:
    return {"type": "record", "name": "R", "fields": [{"name": "f", "type": kind, **more}]}


def decimal(precision: int, scale: int, **more: Any) -> dict[str, Any]:
    return {"type": "bytes", "logicalType": "decimal", "precision": precision, "scale": scale, **more}


def time(unit: str) -> dict[str, Any]:
    return {"type": "int" if unit in ("date", "time-millis") else "long", "logicalType": unit}


@pytest.mark.parametrize(
    ("reader", "writer", "rule", "path"),
    [
        (field(decimal(9, 2)), field(decimal(9, 3)), "DECIMAL_MISMATCH", "/fields/0/type"),
        (field(decimal(9, 2)), field(decimal(8, 2)), "DECIMAL_MISMATCH", "/fields/0/type"),
        (field(["null", decimal(9, 2)]), field(["null", decimal(9, 3)]), "DECIMAL_MISMATCH", "/fields/0/type/1"),
        (
            field({"type": "array", "items": decimal(9, 2)}),
            field({"type": "array", "items": decimal(9, 1)}),
            "DECIMAL_MISMATCH",
            "/fields/0/type/items",
        ),
        (
            field({"type": "fixed", "name": "F", "size": 8, "logicalType": "decimal", "precision": 9, "scale": 2}),
            field({"type": "fixed", "name": "F", "size": 8, "logicalType": "decimal", "precision": 9}),
            "DECIMAL_MISMATCH",
            "/fields/0/type",
        ),
        (field(time("timestamp-millis")), field(time("timestamp-micros")), "TIME_UNIT_MISMATCH", "/fields/0/type"),
        (field(time("time-micros")), field(time("time-millis")), "TIME_UNIT_MISMATCH", "/fields/0/type"),
        (field(time("timestamp-millis")), field(time("date")), "TIME_UNIT_MISMATCH", "/fields/0/type"),
        (field(time("timestamp-nanos")), field(time("timestamp-micros")), "TIME_UNIT_MISMATCH", "/fields/0/type"),
        (field(time("local-timestamp-millis")), field(time("timestamp-millis")), "TIME_UNIT_MISMATCH", "/fields/0/type"),
        (
            field({"type": "map", "values": ["null", time("date")]}),
            field({"type": "map", "values": ["null", time("time-millis")]}),
            "TIME_UNIT_MISMATCH",
            "/fields/0/type/values/1",
        ),
        (field("int", default="one"), {"type": "record", "name": "R", "fields": []}, "INVALID_DEFAULT", "/fields/0/default"),
        (field("int"), {"type": "record", "name": "R", "fields": []}, "READER_FIELD_MISSING_DEFAULT_VALUE", "/fields/0"),
        (field("int"), field("string"), "TYPE_MISMATCH", "/fields/0/type"),
        (field(["int", "null"]), field(["int", "string"]), "MISSING_UNION_BRANCH", "/fields/0/type/1"),
        (
            field({"type": "fixed", "name": "F", "size": 1}),
            field({"type": "fixed", "name": "F", "size": 2}),
            "FIXED_SIZE_MISMATCH",
            "/fields/0/type/size",
        ),
        (
            {"type": "enum", "name": "E", "symbols": ["A"]},
            {"type": "enum", "name": "E", "symbols": ["A", "B"]},
            "MISSING_ENUM_SYMBOLS",
            "/symbols",
        ),
        ({"type": "record", "name": "S", "fields": []}, {"type": "record", "name": "R", "fields": []}, "NAME_MISMATCH", "/name"),
    ],
)
def test_a_finding_names_its_path_and_its_rule(reader: Any, writer: Any, rule: str, path: str) -> None:
    found = can_read(parse_tree(json.dumps(reader), strict=False).root, parse(writer))
    assert [(one.rule, one.path) for one in found] == [(rule, path)]
    assert path in found[0].message()
    assert rule in found[0].message()


@pytest.mark.parametrize(
    ("reader", "writer"),
    [
        (field(decimal(9, 2)), field(decimal(9, 2))),
        (field(decimal(9, 0)), field({"type": "bytes", "logicalType": "decimal", "precision": 9})),
        (field("bytes"), field(decimal(9, 2))),
        (field(time("timestamp-millis")), field("long")),
        (field(time("timestamp-millis")), field("int")),
        (field("double"), field("int")),
        (field("string"), field("bytes")),
        (field({"type": "int", "logicalType": "timestamp-millis"}), field(time("date"))),  # a logical type out of place is none
        (field("int", aliases=["g"]), {"type": "record", "name": "R", "fields": [{"name": "g", "type": "int"}]}),
        (field("int") | {"name": "n.S", "aliases": ["R"]}, field("int") | {"name": "n.R"}),
        (field("int", default=1), {"type": "record", "name": "R", "fields": []}),
    ],
)
def test_what_means_the_same_may_be_read(reader: Any, writer: Any) -> None:
    assert can_read(parse(reader), parse(writer)) == []


@pytest.mark.parametrize(
    ("level", "grows", "shrinks", "far"),
    [
        (Level.NONE, True, True, True),
        (Level.BACKWARD, False, True, True),
        (Level.FORWARD, True, False, True),
        (Level.FULL, False, False, True),
        (Level.BACKWARD_TRANSITIVE, False, True, False),
        (Level.FORWARD_TRANSITIVE, True, False, False),
        (Level.FULL_TRANSITIVE, False, False, False),
    ],
)
def test_a_level_says_who_must_read_whom(level: Level, grows: bool, shrinks: bool, far: bool) -> None:
    small, large = parse({"type": "record", "name": "R", "fields": []}), parse(field("int"))
    assert (check(large, [small], level) == []) is grows
    assert (check(small, [large], level) == []) is shrinks
    first, last = parse(field("int", default=1)), parse({"type": "record", "name": "R", "fields": []})
    again = parse(field("string", default=""))
    assert (check(again, [first, last], level) == []) is far
    assert check(again, [], level) == []


def test_recursive_schemas_are_compared_and_end() -> None:
    def tree(value: str) -> dict[str, Any]:
        return {"type": "record", "name": "T", "fields": [{"name": "v", "type": value}, {"name": "next", "type": ["null", "T"]}]}

    assert can_read(parse(tree("long")), parse(tree("int"))) == []
    assert [one.path for one in can_read(parse(tree("int")), parse(tree("long")))] == ["/fields/0/type"]


def test_a_hostile_pair_is_answered_in_bounded_work() -> None:
    def wide(prefix: str) -> list[Any]:
        return [{"type": "record", "name": f"{prefix}{i}", "fields": []} for i in range(1_500)]

    with pytest.raises(SchemaError, match="pairs of types"):
        can_read(parse(wide("A")), parse(wide("B")))


def test_a_pair_with_countless_differences_names_some_of_them() -> None:
    def wide(kind: str) -> dict[str, Any]:
        return {"type": "record", "name": "R", "fields": [{"name": f"f{i}", "type": kind} for i in range(1_000)]}

    assert 10 < len(can_read(parse(wide("int")), parse(wide("string")))) < 200


def test_a_name_defined_twice_is_refused() -> None:
    with pytest.raises(SchemaError, match="defined twice"):
        parse({"type": "record", "name": "R", "fields": [{"name": "f", "type": {"type": "enum", "name": "R", "symbols": []}}]})


@pytest.mark.parametrize(
    ("kind", "good", "bad"),
    [
        ("int", [0, -(2**31)], [2**31, 1.0, True, "1", None]),
        ("long", [2**63 - 1], [2**63, 1.5]),
        ("float", [1, 1.5, "NaN"], ["one", True, None]),
        ("bytes", ["", "\u00ff"], ["\u0100", 1]),
        ("string", ["x"], [1, None]),
        ("null", [None], [0, ""]),
        (["null", "string"], [None, "x"], [1]),
        ({"type": "array", "items": "int"}, [[], [1]], [["x"], {}]),
        ({"type": "map", "values": "int"}, [{}, {"a": 1}], [{"a": "x"}, []]),
        ({"type": "enum", "name": "E", "symbols": ["A"]}, ["A"], ["B", 0]),
        ({"type": "fixed", "name": "F", "size": 2}, ["ab"], ["a", "abc", 5]),
        (field("int", default=3), [{}, {"f": 1}], [{"f": "x"}, [], None]),
    ],
)
def test_a_default_must_fit_its_type(kind: Any, good: list[Any], bad: list[Any]) -> None:
    node = parse(kind)
    assert [value for value in good if not fits(node, value)] == []
    assert [value for value in bad if fits(node, value)] == []
    nested = {"type": "record", "name": "Outer", "fields": [{"name": "x", "type": kind, "default": bad[0]}]}
    with pytest.raises(SchemaError, match=r"/fields/0/default.*'x'"):
        check_defaults(parse(nested))
