"""From the JSON of a schema to types: names resolved, rules checked, depth and size bounded.

fastavro alone is not enough here: its parser recurses without a bound, and takes field names, unions and defaults that
other Avro implementations refuse.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

from pipeline.errors import SchemaError
from pipeline.schema.avro_types import (
    DECIMAL_PRECISION_MAX,
    NO_DEFAULT,
    PRIMITIVES,
    Array,
    AvroType,
    Enum,
    Field,
    Fixed,
    Logical,
    Map,
    Named,
    Primitive,
    Record,
    Union,
    children,
    type_name,
)

COMPLEX = frozenset({"record", "enum", "fixed", "array", "map"})

# Deeper schemas are not seen in practice; every level costs stack in each recursive reader of it, fastavro's C code included.
SCHEMA_DEPTH_MAX = 64
# References may double a schema at every level; a value of it would need no bytes and fill the memory.
EXPANDED_TYPES_MAX = 50_000
# A fixed (or the bytes of a decimal) larger than this is an attack or a mistake.
FIXED_BYTES_MAX = 1 << 20
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
# Which type a logical type may annotate; the specification says to ignore it elsewhere.
_LOGICAL_BASES: Mapping[str, frozenset[str]] = {
    "decimal": frozenset({"bytes", "fixed"}),
    "uuid": frozenset({"string", "fixed"}),
    "date": frozenset({"int"}),
    "time-millis": frozenset({"int"}),
    "time-micros": frozenset({"long"}),
    "timestamp-millis": frozenset({"long"}),
    "timestamp-micros": frozenset({"long"}),
    "timestamp-nanos": frozenset({"long"}),
    "local-timestamp-millis": frozenset({"long"}),
    "local-timestamp-micros": frozenset({"long"}),
    "local-timestamp-nanos": frozenset({"long"}),
    "duration": frozenset({"fixed"}),
}


def parse_type(schema: Any, *, reserved: frozenset[str] = frozenset(), depth_max: int = SCHEMA_DEPTH_MAX) -> AvroType:
    """The type that ``schema`` (JSON as Python values) describes.

    Raises SchemaError with the reason: not Avro, duplicate or ``reserved`` names (the last part of a name counts), more
    than ``depth_max`` types inside each other. Defaults are checked by ``pipeline.schema.field_defaults``.
    """
    return _Parser(reserved, depth_max).parse(schema, "", 1)


class _Parser:
    def __init__(self, reserved: frozenset[str], depth_max: int) -> None:
        self.reserved = reserved
        self.depth_max = depth_max
        self.named: dict[str, Named] = {}
        # References make a schema deeper and larger than its text: (height, number of types when written out) of each type.
        self.extent: dict[AvroType, tuple[int, int]] = {}
        # The records around the place being read, and for a finished record the outermost of them that it leads back to.
        self.open: list[Record] = []
        self.leads_to: dict[Record, Record] = {}

    def parse(self, schema: Any, namespace: str, depth: int) -> AvroType:
        avro = self.parse_one(schema, namespace, depth)
        if avro not in self.extent and avro not in self.open:
            inner = [self.extent.get(child, (1, 1)) for child in children(avro)]
            self.extent[avro] = 1 + max((h for h, _ in inner), default=0), 1 + sum(n for _, n in inner)
        height, count = self.extent.get(avro, (1, 1))
        if depth + height - 1 > self.depth_max:
            raise SchemaError(f"more than {self.depth_max} types are nested inside each other: make the schema flatter")
        if count > EXPANDED_TYPES_MAX:
            raise SchemaError(f"more than {EXPANDED_TYPES_MAX:,} types with its references written out: make it smaller")
        return avro

    def parse_one(self, schema: Any, namespace: str, depth: int) -> AvroType:
        if depth > self.depth_max:
            raise SchemaError(f"more than {self.depth_max} types are nested inside each other: make the schema flatter")
        if isinstance(schema, str):
            return self.reference(schema, namespace)
        if isinstance(schema, list):
            return self.union(schema, namespace, depth)
        if not isinstance(schema, dict):
            raise SchemaError(f"a type is a name, a list (union) or an object, not {_json_kind(schema)}")
        kind = schema.get("type")
        if not isinstance(kind, str):
            raise SchemaError('"type" must be the name of a type' if "type" in schema else 'an object lacks its "type"')
        if kind == "record":
            return self.record(schema, namespace, depth)
        if kind == "enum":
            return self.enum(schema, namespace)
        if kind == "fixed":
            return self.fixed(schema, namespace)
        if kind == "array":
            return Array(self.parse(self.member(schema, "items", "array"), namespace, depth + 1))
        if kind == "map":
            return Map(self.parse(self.member(schema, "values", "map"), namespace, depth + 1))
        if kind in PRIMITIVES:
            return Primitive(kind, _logical(schema, kind, None))
        raise SchemaError(f"unknown type {kind!r}")

    @staticmethod
    def member(schema: dict[str, Any], key: str, kind: str) -> Any:
        if key not in schema:
            raise SchemaError(f'the {kind} lacks "{key}"')
        return schema[key]

    def reference(self, name: str, namespace: str) -> AvroType:
        if name in PRIMITIVES:
            return Primitive(name)
        full = f"{namespace}.{name}" if namespace and "." not in name else name
        if full not in self.named:
            raise SchemaError(f"unknown type {full!r}: a named type must be defined before it is used")
        found = self.named[full]
        if isinstance(found, Record):
            self.mark_cycle(found)
        return found

    def mark_cycle(self, target: Record) -> None:
        """A reference to ``target`` from here: every open record from the one that it leads back to is recursive."""
        while target not in self.open:
            if target not in self.leads_to:
                return
            target = self.leads_to[target]
        for record in self.open[self.open.index(target) :]:
            record.recursive = True
            known = self.leads_to.get(record)
            if known is None or (known in self.open and self.open.index(target) < self.open.index(known)):
                self.leads_to[record] = target

    def define(self, schema: dict[str, Any], namespace: str) -> tuple[str, str]:
        """The namespace inside and the full name of a record, enum or fixed."""
        name, space = schema.get("name"), schema.get("namespace", namespace)
        if not isinstance(name, str):
            raise SchemaError(f'a {schema["type"]} lacks its "name"')
        if not isinstance(space, str):
            raise SchemaError(f'the "namespace" of {name!r} must be a string')
        full = name if "." in name or not space else f"{space}.{name}"
        aliases = schema.get("aliases", [])
        if not isinstance(aliases, list) or not all(isinstance(alias, str) for alias in aliases):
            raise SchemaError(f'the "aliases" of {full!r} must be a list of names')
        for each in (full, *aliases):
            if not all(_NAME.fullmatch(part) for part in each.split(".")):
                raise SchemaError(f"{each!r} is not a name: letters, digits and _ only, with dots between namespaces")
            if each.rsplit(".", 1)[-1] in self.reserved:
                raise SchemaError(f"the name {each!r} is reserved for Headrace's envelope: choose another")
        if full in PRIMITIVES or full in COMPLEX:
            raise SchemaError(f"{full!r} is a type of Avro itself: choose another name")
        if full in self.named:
            raise SchemaError(f"the name {full!r} is defined twice")
        return full.rpartition(".")[0], full

    def record(self, schema: dict[str, Any], namespace: str, depth: int) -> Record:
        inside, full = self.define(schema, namespace)
        record = Record(full)
        self.named[full] = record
        fields_json = schema.get("fields")
        if not isinstance(fields_json, list):
            raise SchemaError(f'the record {full!r} lacks its list of "fields"')
        self.open.append(record)
        fields: dict[str, Field] = {}
        for one in fields_json:
            name = one.get("name") if isinstance(one, dict) else None
            if not isinstance(name, str) or not _NAME.fullmatch(name):
                raise SchemaError(f"a field of {full!r} lacks a valid name (letters, digits and _ only)")
            if name in fields:
                raise SchemaError(f"the field {name!r} is defined twice in {full!r}")
            if "type" not in one:
                raise SchemaError(f'the field {name!r} of {full!r} lacks its "type"')
            aliases = one.get("aliases", [])
            if not isinstance(aliases, list) or not all(isinstance(alias, str) for alias in aliases):
                raise SchemaError(f'the "aliases" of the field {name!r} of {full!r} must be a list of names')
            fields[name] = Field(name, self.parse(one["type"], inside, depth + 1), one.get("default", NO_DEFAULT))
        record.fields = tuple(fields.values())
        self.open.pop()
        return record

    def enum(self, schema: dict[str, Any], namespace: str) -> Enum:
        _, full = self.define(schema, namespace)
        symbols = schema.get("symbols")
        if not isinstance(symbols, list) or not symbols:
            raise SchemaError(f'the enum {full!r} lacks its list of "symbols"')
        if not all(isinstance(symbol, str) and _NAME.fullmatch(symbol) for symbol in symbols):
            raise SchemaError(f"a symbol of the enum {full!r} is not a name: letters, digits and _ only")
        if len(set(symbols)) != len(symbols):
            raise SchemaError(f"a symbol of the enum {full!r} is listed twice")
        if "default" in schema and schema["default"] not in symbols:
            raise SchemaError(f"the default of the enum {full!r} is not one of its symbols")
        self.named[full] = enum = Enum(full, tuple(symbols))
        return enum

    def fixed(self, schema: dict[str, Any], namespace: str) -> Fixed:
        _, full = self.define(schema, namespace)
        size = schema.get("size")
        if not isinstance(size, int) or isinstance(size, bool) or not 0 <= size <= FIXED_BYTES_MAX:
            raise SchemaError(f'the fixed {full!r} needs a "size" from 0 to {FIXED_BYTES_MAX:,} bytes')
        self.named[full] = fixed = Fixed(full, size, _logical(schema, "fixed", size))
        return fixed

    def union(self, schema: list[Any], namespace: str, depth: int) -> Union:
        if not schema:
            raise SchemaError("a union needs at least one type")
        branches = tuple(self.parse(branch, namespace, depth + 1) for branch in schema)
        names = [type_name(branch) for branch in branches]
        if "union" in names:
            raise SchemaError("a union may not hold a union directly")
        for name in names:
            if names.count(name) > 1:
                raise SchemaError(f"a union holds {name!r} twice")
        return Union(branches)


def _logical(schema: dict[str, Any], base: str, size_bytes: int | None) -> Logical | None:
    name = schema.get("logicalType")
    if not isinstance(name, str) or base not in _LOGICAL_BASES.get(name, ()):
        return None
    if name in ("uuid", "duration") and size_bytes is not None and size_bytes != (16 if name == "uuid" else 12):
        return None
    if name != "decimal":
        return Logical(name)
    precision, scale = schema.get("precision"), schema.get("scale", 0)
    if not isinstance(precision, int) or isinstance(precision, bool) or not 1 <= precision <= DECIMAL_PRECISION_MAX:
        raise SchemaError(f'a decimal needs a "precision" from 1 to {DECIMAL_PRECISION_MAX:,} digits')
    if not isinstance(scale, int) or isinstance(scale, bool) or not 0 <= scale <= precision:
        raise SchemaError('the "scale" of a decimal is from 0 to its precision')
    if size_bytes is not None and precision > math.floor(math.log10(2) * (8 * size_bytes - 1)):
        raise SchemaError(f"a decimal of {precision} digits does not fit into a fixed of {size_bytes} bytes")
    return Logical("decimal", precision, scale)


def _json_kind(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "a boolean"
    return "a number" if isinstance(value, int | float) else type(value).__name__
