"""Whether a field's default fits the field's type: what PyPI's ``avro`` does not look at.

A default that does not fit is harmless until a reader needs it, and then every record fails. Rules of Avro 1.12: the
default of a union may fit any branch.
"""

from __future__ import annotations

from typing import Any

from pipeline.errors import SchemaError
from pipeline.schema.avro_tree import Node

_FLOAT_WORDS = frozenset({"NaN", "Infinity", "-Infinity"})


def check_defaults(root: Node) -> None:
    """Raises ``SchemaError`` naming the first field whose default does not fit. Every type is looked at once."""
    seen: set[int] = set()
    waiting: list[tuple[Node, str]] = [(root, "")]
    while waiting:
        node, where = waiting.pop()
        if id(node) in seen:
            continue
        seen.add(id(node))
        for i, field in enumerate(node.fields):
            place = f"{where}/fields/{i}"
            if field.has_default and not fits(field.type, field.default):
                raise SchemaError(
                    f"{place}/default: the default of field {field.name!r} does not fit its type ({_kinds(field.type)})"
                )
            waiting.append((field.type, f"{place}/type"))
        waiting.extend((branch, f"{where}/{i}") for i, branch in enumerate(node.branches))
        if node.inner is not None:
            waiting.append((node.inner, f"{where}/{'items' if node.kind == 'array' else 'values'}"))


def fits(node: Node, value: Any) -> bool:
    """Whether the JSON ``value`` is a valid default for ``node``."""
    kind = node.kind
    if kind == "union":
        return any(fits(branch, value) for branch in node.branches)
    if kind == "null":
        return value is None
    if kind == "boolean":
        return isinstance(value, bool)
    if kind in ("int", "long"):
        bits = 31 if kind == "int" else 63
        return type(value) is int and -(2**bits) <= value < 2**bits
    if kind in ("float", "double"):
        return type(value) in (int, float) or (isinstance(value, str) and value in _FLOAT_WORDS)
    if kind == "string":
        return isinstance(value, str)
    return _fits_complex(node, value)


def _fits_complex(node: Node, value: Any) -> bool:
    kind = node.kind
    if kind in ("bytes", "fixed"):
        # Bytes are written as text of code points 0 to 255, one per byte.
        is_bytes = isinstance(value, str) and all(ord(char) < 256 for char in value)
        return is_bytes and (kind == "bytes" or len(value) == node.size)
    if kind == "enum":
        return isinstance(value, str) and value in node.symbols
    if kind == "array" and node.inner is not None:
        return isinstance(value, list) and all(fits(node.inner, item) for item in value)
    if kind == "map" and node.inner is not None:
        return isinstance(value, dict) and all(fits(node.inner, item) for item in value.values())
    if not isinstance(value, dict):
        return False
    # A record inside a default may leave out the fields that have defaults of their own.
    return all(fits(f.type, value[f.name]) if f.name in value else f.has_default for f in node.fields)


def _kinds(node: Node) -> str:
    return " or ".join(branch.kind for branch in node.branches) if node.kind == "union" else node.kind
