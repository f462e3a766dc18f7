"""What a request says: path, query parameters and body, read strictly where a wrong reading would do harm.

Unknown parameters and fields are left alone: newer clients send more than this registry knows.
"""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import unquote

from starlette.requests import Request

from pipeline.errors import SchemaError
from pipeline.registry import errors, subjects
from pipeline.registry.records import Reference
from pipeline.registry.schemas import SchemaRequest
from pipeline.schema.avro_tree import load_json

VERSION_MAX = 2**31 - 1


def text(request: Request, name: str) -> str:
    """A part of the path, percent-decoded (it may hold ``/``)."""
    try:
        return unquote(request.path_params[name], errors="strict")
    except UnicodeDecodeError as error:
        raise errors.invalid_subject(request.path_params[name]) from error


def subject(request: Request) -> str:
    return subjects.normalize(text(request, "subject"))


def scope(request: Request) -> str | None:
    """The subject of a setting; None for the default context, which is all subjects."""
    if "subject" not in request.path_params:
        return None
    raw = text(request, "subject")
    return None if raw in (":.:", ":.") else subjects.normalize(raw)


def version(request: Request) -> int:
    """A version number; -1 for ``latest``. Raises 42202."""
    raw = text(request, "version")
    if raw in ("latest", "-1"):
        return -1
    if not raw.isascii() or not raw.isdigit() or not 1 <= int(raw[:12]) <= VERSION_MAX:
        raise errors.invalid_version(raw)
    return int(raw)


def flag(request: Request, name: str) -> bool:
    return request.query_params.get(name, "").strip().lower() == "true"


def number(request: Request, name: str, default: int) -> int:
    raw = request.query_params.get(name)
    if raw is None or raw == "":
        return default
    try:
        return int(raw[:12])
    except ValueError as error:
        raise errors.bad_request(f"the parameter {name} must be a whole number") from error


def page(request: Request, items: list[Any]) -> list[Any]:
    """The part of ``items`` that ``offset`` and ``limit`` ask for; a limit below 0 is none."""
    offset, limit = max(0, number(request, "offset", 0)), number(request, "limit", -1)
    return items[offset:] if limit < 0 else items[offset : offset + limit]


async def body(request: Request) -> dict[str, Any]:
    """The JSON object in the body. Raises 400, and 42209 for one that is too large."""
    raw = await request.body()
    try:
        # Bodies are bounded before this; what they nest is bounded here, before any parser recurses into it.
        value = load_json(raw.decode(), depth_max=64)
    except (UnicodeDecodeError, SchemaError) as error:
        raise errors.bad_request("the body is not JSON, or nested too deeply") from error
    if not isinstance(value, dict):
        raise errors.bad_request("the body must be a JSON object")
    return value


async def schema_request(request: Request) -> SchemaRequest:
    """The body of a registration, a look-up or a compatibility test. Raises 400 or 42201."""
    fields = await body(request)
    schema = fields.get("schema")
    if schema is None:
        raise errors.invalid_schema('"schema" is missing')
    if not isinstance(schema, str):
        schema = json.dumps(schema)  # some tools send the schema as JSON instead of as text
    kind = fields.get("schemaType") or "AVRO"
    if not isinstance(kind, str):
        raise errors.unsupported_type(str(kind)[:40])
    return SchemaRequest(
        schema=schema,
        schema_type=kind,
        references=_references(fields.get("references")),
        metadata=_object(fields, "metadata"),
        rule_set=_object(fields, "ruleSet"),
        version=_integer(fields, "version", 0),
        id=_integer(fields, "id", -1),
    )


def _references(value: Any) -> tuple[Reference, ...]:
    if value is None:
        return ()
    try:
        found = tuple(Reference(one["name"], one["subject"], int(one["version"])) for one in value)
    except (TypeError, KeyError, ValueError) as error:
        raise errors.invalid_schema("each reference needs name, subject and version") from error
    if not all(isinstance(one.name, str) and isinstance(one.subject, str) for one in found):
        raise errors.invalid_schema("each reference needs name, subject and version")
    return found


def _integer(fields: dict[str, Any], name: str, default: int) -> int:
    value = fields.get(name)
    if value is None:
        return default
    if type(value) is not int or not -1 <= value <= VERSION_MAX:
        raise errors.bad_request(f'"{name}" must be a whole number')
    return int(value)


def _object(fields: dict[str, Any], name: str) -> dict[str, Any] | None:
    value = fields.get(name)
    if value is not None and not isinstance(value, dict):
        raise errors.bad_request(f'"{name}" must be an object')
    return value or None
