"""A stream's value schema: read, checked and kept as the text that is registered."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import fastavro

from pipeline.errors import SchemaError
from pipeline.schema.avro_types import Record
from pipeline.schema.field_defaults import check_defaults
from pipeline.schema.type_parser import SCHEMA_DEPTH_MAX, parse_type

SCHEMA_BYTES_MAX = 1_000_000
ENVELOPE_NAMES = frozenset({"HeadraceAggregate", "HeadraceEntry", "HeadraceHeader"})


@dataclass(frozen=True, slots=True)
class ValueSchema:
    """A named record that parsed and passed every check. Equal if the texts are equal; safe to share between threads.

    ``text`` is what is registered: compact JSON with everything its author wrote (docs, defaults, aliases, order).
    ``parsed`` is fastavro's form of it (do not change it), ``type`` ours.
    """

    full_name: str
    text: str
    parsed: dict[str, Any] = field(compare=False, repr=False)
    type: Record = field(compare=False, repr=False)

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        # Types are compared by identity, so a copy in another process is made from the text.
        return parse_schema, (self.text,)


def load_schema(path: str | Path) -> ValueSchema:
    """The schema in a file. Raises SchemaError that names the file and the reason."""
    path = Path(path)
    try:
        with path.open("rb") as file:
            raw = file.read(SCHEMA_BYTES_MAX + 1)
    except OSError as error:
        raise SchemaError(f"{path}: cannot be read: {error.strerror or error}") from error
    try:
        text = raw.decode("utf-8-sig") if len(raw) <= SCHEMA_BYTES_MAX else " " * len(raw)
    except UnicodeDecodeError as error:
        raise SchemaError(f"{path}: not JSON: not UTF-8 at byte {error.start}") from error
    return parse_schema(text, source=str(path))


def parse_schema(schema: str | Mapping[str, Any], source: str = "") -> ValueSchema:
    """The schema in a JSON text or its parsed form. ``source`` (a file or subject) stands first in every message.

    Raises SchemaError: not JSON, over 1 MB, not Avro, not a record, nested more than 64 types deep, a name that is
    defined twice or reserved for the envelope, a default that does not fit its field.
    """
    try:
        tree = json_tree(schema)
        if not isinstance(tree, dict) or tree.get("type") != "record":
            raise SchemaError("the schema of a stream must be a record with a name at its top")
        avro = parse_type(tree, reserved=ENVELOPE_NAMES)
        assert isinstance(avro, Record)
        check_defaults(avro)
        return ValueSchema(avro.name, compact(tree), fastavro_form(tree), avro)
    except SchemaError as error:
        raise (SchemaError(f"{source}: {error}") if source else error) from error.__cause__


def json_tree(schema: str | Mapping[str, Any]) -> Any:
    """The JSON values of a schema text, bounded in size, without duplicate keys. Raises SchemaError."""
    if not isinstance(schema, str):
        try:
            schema = json.dumps(schema)
        except (TypeError, ValueError, RecursionError) as error:
            raise SchemaError(f"not JSON: {_reason(error)}") from error
    if len(schema) > SCHEMA_BYTES_MAX or len(schema.encode("utf-8", "surrogatepass")) > SCHEMA_BYTES_MAX:
        raise SchemaError(f"larger than {SCHEMA_BYTES_MAX:,} bytes: split the record, or shorten its docs")
    try:
        tree = json.loads(schema, object_pairs_hook=_object, parse_constant=_no_constant)
        compact(tree).encode()
    except (ValueError, RecursionError) as error:
        raise SchemaError(f"not JSON: {_reason(error)}") from error
    return tree


def compact(tree: Any) -> str:
    """JSON without spaces, keys in the author's order."""
    return json.dumps(tree, separators=(",", ":"), ensure_ascii=False)


def fastavro_form(tree: dict[str, Any]) -> dict[str, Any]:
    """fastavro's parsed form of a schema that ``parse_type`` has accepted (its parser has no bound of its own)."""
    try:
        # Our own check of defaults is the stricter and the more precise one (bytes, decimals, nested records).
        parsed: dict[str, Any] = fastavro.parse_schema(tree, named_schemas={}, _ignore_default_error=True)  # type: ignore[assignment]
    except Exception as error:  # fastavro raises KeyError, TypeError and others
        raise SchemaError(f"not a schema that fastavro takes: {_reason(error)}") from error
    return parsed


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("an object has the same key twice")
    return found


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not a JSON number")


def _reason(error: Exception) -> str:
    if isinstance(error, RecursionError):
        return f"nested too deep (at most {SCHEMA_DEPTH_MAX} types inside each other)"
    if isinstance(error, UnicodeEncodeError):
        return "a lone surrogate, which UTF-8 cannot hold"
    return " ".join(str(error).split())[:200] or type(error).__name__
