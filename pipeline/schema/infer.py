"""A schema from JSON lines: what the records seen so far have in common. A start for a person to look over, not a contract."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

from pipeline.errors import SchemaError
from pipeline.schema.avro_types import LONG_MAX, LONG_MIN
from pipeline.schema.value_schema import ValueSchema, parse_schema

FIELDS_MAX = 2_000  # of one record: more are keys of a map that was written as a record
LINE_CHARACTERS_MAX = 16 << 20
DEPTH_MAX = 16
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def infer(lines: Iterable[str], name: str, namespace: str | None = None, source: str = "") -> ValueSchema:
    """The schema of JSON objects, one a line. Fields that are null or missing somewhere become optional; whole numbers are
    ``long``, numbers ``double``; texts stay texts, dates too; objects are records.

    Raises SchemaError naming the line, or the field whose name or values Avro cannot have.
    """
    seen = _Seen()
    number = 0
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        if len(line) > LINE_CHARACTERS_MAX:
            raise SchemaError(f"{source}:{number}: longer than {LINE_CHARACTERS_MAX:,} characters")
        try:
            value = json.loads(line)
        except (ValueError, RecursionError):
            raise SchemaError(f"{source}:{number}: not JSON; one object a line is expected") from None
        if not isinstance(value, dict):
            raise SchemaError(f"{source}:{number}: an object is expected, not {type(value).__name__}")
        try:
            seen.look(value, 1)
        except SchemaError as error:
            raise SchemaError(f"{source}:{number}: {error}") from None
    if not seen.records:
        raise SchemaError(f"{source}: no records in it")
    tree = _Writer().record(seen, name)
    return parse_schema(tree | ({"namespace": namespace} if namespace else {}), source)


class _Seen:
    """What was seen at one place: how often each kind of value, and what was inside."""

    def __init__(self) -> None:
        self.kinds: set[str] = set()
        self.records = 0
        self.fields: dict[str, _Seen] = {}
        self.present: dict[str, int] = {}
        self.items: _Seen | None = None

    def look(self, value: Any, depth: int) -> None:
        if depth > DEPTH_MAX:
            raise SchemaError(f"more than {DEPTH_MAX} objects and lists inside each other")
        if isinstance(value, Mapping):
            self.kinds.add("record")
            self.records += 1
            for key, item in value.items():
                if not _NAME.fullmatch(key):
                    raise SchemaError(f"{key[:100]!r} is not a field's name: letters, digits and _ only, not a digit first")
                self.fields.setdefault(key, _Seen()).look(item, depth + 1)
                self.present[key] = self.present.get(key, 0) + 1
            if len(self.fields) > FIELDS_MAX:
                raise SchemaError(f"an object with more than {FIELDS_MAX:,} different fields: are they keys of a map?")
        elif isinstance(value, list):
            self.kinds.add("array")
            self.items = self.items or _Seen()
            for item in value:
                self.items.look(item, depth + 1)
        else:
            self.kinds.add(_kind(value))


class _Writer:
    def __init__(self) -> None:
        self.names: set[str] = set()

    def record(self, seen: _Seen, name: str) -> dict[str, Any]:
        unique = name
        while unique in self.names:
            unique += "_"
        self.names.add(unique)
        fields = []
        for key, inside in seen.fields.items():
            kind = self.type(inside, f"{key[0].upper()}{key[1:]}", missing=seen.present[key] < seen.records)
            optional = isinstance(kind, list) and kind[0] == "null"
            fields.append({"name": key, "type": kind} | ({"default": None} if optional else {}))
        return {"type": "record", "name": unique, "fields": fields}

    def type(self, seen: _Seen, name: str, missing: bool = False) -> Any:
        kinds = set(seen.kinds)
        if "double" in kinds:
            kinds.discard("long")
        branches: list[Any] = [kind for kind in ("boolean", "long", "double", "string") if kind in kinds]
        if "array" in kinds and seen.items is not None:
            branches.append({"type": "array", "items": self.type(seen.items, name)})
        if "record" in kinds:
            branches.append(self.record(seen, name))
        # Nothing but nulls, or nothing at all: texts are what most often comes later.
        branches = branches or ["string"]
        if missing or "null" in kinds or not kinds:
            return ["null", *branches]
        return branches[0] if len(branches) == 1 else branches


def _kind(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int):
        return "long" if LONG_MIN <= value <= LONG_MAX else "double"
    return "double" if isinstance(value, float) else "string"
