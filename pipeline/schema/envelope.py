"""The aggregate's schema: many records of one shard in one Avro value that any registry-aware client can read.

    HeadraceAggregate {
      records: array<HeadraceEntry {
        seq: int                    from the stamp's first_seq
        key: string                 partition key
        id: null | string           explicit dedup id
        salt: int
        timestamp: timestamp-millis
        headers: array<HeadraceHeader { key: string, value: null | bytes }>
        value: null | V             null is a tombstone; V is the stream's value schema under its full name
      }>
    }

The envelope has no namespace, so a V without one resolves to the same full names inside as alone. Its three names are
reserved: a value schema may not define them.
"""

from __future__ import annotations

import json
from typing import Any

from pipeline.errors import SchemaError
from pipeline.schema.value_schema import ValueSchema, compact, json_tree, parse_schema

# The body of an END marker: a valid aggregate without records.
EMPTY_AGGREGATE = b"\x00"

AGGREGATE_NAME = "HeadraceAggregate"
_MILLIS: dict[str, Any] = {"type": "long", "logicalType": "timestamp-millis"}


def envelope_text(value_schema: ValueSchema) -> str:
    """The schema registered under the aggregate's subject: compact JSON, the same text for the same value schema."""
    return compact(envelope_tree(json.loads(value_schema.text), _MILLIS))


def envelope_tree(value: Any, timestamp: Any) -> dict[str, Any]:
    """The envelope around the JSON of V. A reader passes ``"long"`` for the timestamp and is spared a datetime per record."""
    header = _record("HeadraceHeader", {"key": "string", "value": ["null", "bytes"]})
    entry = _record(
        "HeadraceEntry",
        {
            "seq": "int",
            "key": "string",
            "id": ["null", "string"],
            "salt": "int",
            "timestamp": timestamp,
            "headers": {"type": "array", "items": header},
            "value": ["null", value],
        },
    )
    next(one for one in entry["fields"] if one["name"] == "id")["default"] = None
    return _record(AGGREGATE_NAME, {"records": {"type": "array", "items": entry}})


def is_envelope(writer_text: str) -> bool:
    """Whether a writer's schema is an aggregate (else it is one plain record). Raises SchemaError for what is not JSON."""
    tree = json_tree(writer_text)
    return isinstance(tree, dict) and tree.get("name") == AGGREGATE_NAME and not tree.get("namespace")


def value_schema_of(writer_text: str, source: str = "") -> ValueSchema:
    """The V inside an aggregate's schema. Raises SchemaError if this is not the envelope that this version writes."""
    tree = json_tree(writer_text)
    try:
        entry = tree["fields"][0]["type"]["items"]
        value = next(one for one in entry["fields"] if one["name"] == "value")["type"][1]
    except (KeyError, IndexError, TypeError, StopIteration):
        raise SchemaError(_not_ours(source)) from None
    found = parse_schema(value, source) if isinstance(value, dict) else None
    if found is None or _shape(tree) != _shape(envelope_tree(value, _MILLIS)):
        raise SchemaError(_not_ours(source))
    return found


def _record(name: str, fields: dict[str, Any]) -> dict[str, Any]:
    return {"type": "record", "name": name, "fields": [{"name": key, "type": kind} for key, kind in fields.items()]}


def _not_ours(source: str) -> str:
    return f"{source or 'the schema'}: named {AGGREGATE_NAME} but not Headrace's aggregate: written by a newer version? Upgrade"


def _shape(tree: Any) -> Any:
    """What decides how bytes are read: without docs, order of keys, and defaults, which a registry may rewrite."""
    if isinstance(tree, dict):
        kept = {key: _shape(value) for key, value in tree.items() if key in ("name", "type", "items", "fields", "logicalType")}
        return kept["type"] if set(kept) == {"type"} and isinstance(kept["type"], str) else kept
    return [_shape(item) for item in tree] if isinstance(tree, list) else tree
