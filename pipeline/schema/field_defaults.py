"""Defaults: from the JSON in a schema to the values that a record without the field gets."""

from __future__ import annotations

from typing import Any

from pipeline.errors import SchemaError
from pipeline.schema.avro_types import (
    INT_MAX,
    INT_MIN,
    LONG_MAX,
    LONG_MIN,
    Array,
    AvroType,
    Enum,
    Field,
    Fixed,
    Map,
    Primitive,
    Record,
    Union,
    type_name,
    walk,
)

# A recursive record whose default holds itself never ends; deeper defaults than this are not written by people.
_DEPTH_MAX = 100


def check_defaults(root: AvroType) -> None:
    """Raise SchemaError, naming record and field, for a default that does not fit its type."""
    for avro in walk(root):
        if isinstance(avro, Record):
            for one in avro.fields:
                if one.has_default:
                    try:
                        default_value(one)
                    except SchemaError as error:
                        raise SchemaError(f"the default of the field {one.name!r} of {avro.name!r}: {error}") from None


def default_value(one: Field) -> Any:
    """The value that stands for a missing field. A new one at each call: callers may change lists and maps."""
    return _value(one.type, one.default_json, 0)


def _value(avro: AvroType, json: Any, depth: int) -> Any:
    if depth > _DEPTH_MAX:
        raise SchemaError("it holds itself without an end")
    if isinstance(avro, Union):
        return _union(avro, json, depth)
    if isinstance(avro, Record) and isinstance(json, dict):
        return _record(avro, json, depth)
    if isinstance(avro, Array) and isinstance(json, list):
        return [_value(avro.items, item, depth + 1) for item in json]
    if isinstance(avro, Map) and isinstance(json, dict):
        return {key: _value(avro.values, item, depth + 1) for key, item in json.items()}
    if isinstance(avro, Enum) and isinstance(json, str) and json in avro.symbols:
        return json
    if isinstance(avro, Fixed) and isinstance(json, str) and len(json) == avro.size_bytes:
        return _latin1(json)
    if isinstance(avro, Primitive):
        return _primitive(avro.name, json)
    raise SchemaError(f"it is not {type_name(avro)}")


def _union(avro: Union, json: Any, depth: int) -> Any:
    for branch in avro.branches:
        try:
            return _value(branch, json, depth)
        except SchemaError:
            continue
    raise SchemaError("it fits no type of the union")


def _record(avro: Record, json: dict[str, Any], depth: int) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for one in avro.fields:
        if one.name not in json and not one.has_default:
            raise SchemaError(f"it lacks {one.name!r} of {avro.name!r}")
        found[one.name] = _value(one.type, json.get(one.name, one.default_json), depth + 1)
    if extra := json.keys() - found.keys():
        raise SchemaError(f"{avro.name!r} has no field {min(extra)!r}")
    return found


def _primitive(name: str, json: Any) -> Any:
    if (name == "null" and json is None) or (name == "boolean" and isinstance(json, bool)):
        return json
    if name == "string" and isinstance(json, str):
        return json
    if name == "bytes" and isinstance(json, str):
        return _latin1(json)
    if isinstance(json, int) and not isinstance(json, bool):
        if (name == "int" and INT_MIN <= json <= INT_MAX) or (name == "long" and LONG_MIN <= json <= LONG_MAX):
            return json
        if name in ("float", "double"):
            return _float(json)
    if name in ("float", "double") and (isinstance(json, float) or json in ("NaN", "Infinity", "-Infinity")):
        return float(json)
    raise SchemaError(f"it is not {name}")


def _float(json: int) -> float:
    try:
        return float(json)
    except OverflowError:
        raise SchemaError("it is too large for a number") from None


def _latin1(json: str) -> bytes:
    """Avro writes the bytes of a default as the characters U+0000 to U+00FF."""
    try:
        return json.encode("latin-1")
    except UnicodeEncodeError:
        raise SchemaError("bytes are written as the characters U+0000 to U+00FF") from None
