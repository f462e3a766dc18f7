"""What the registry says: versions and errors as JSON, in the shape that Confluent's clients read."""

from __future__ import annotations

import json
from typing import Any

from starlette.responses import PlainTextResponse, Response

from pipeline.registry.errors import RegistryError
from pipeline.registry.records import SchemaVersion

MEDIA_TYPE = "application/vnd.schemaregistry.v1+json"


class Answer(Response):
    """JSON under the registry's media type."""

    media_type = MEDIA_TYPE

    def render(self, content: Any) -> bytes:
        return json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode()


def refusal(error: RegistryError) -> Answer:
    headers = {}
    if error.status == 401:
        headers["WWW-Authenticate"] = 'Basic realm="headrace registry"'
    if error.status == 503:
        headers["Retry-After"] = "1"
    return Answer({"error_code": error.code, "message": error.message}, status_code=error.status, headers=headers)


def plain_schema(schema: str) -> Response:
    """Only the schema, as clients ask for under ``…/schema``."""
    return PlainTextResponse(schema, media_type=MEDIA_TYPE)


def whole(version: SchemaVersion, schema: str | None = None) -> dict[str, Any]:
    """A version with everything that belongs to it; ``schema`` replaces the stored text."""
    return {
        "subject": version.subject,
        "version": version.version,
        "id": version.id,
        **content(version, schema),
        **({"ts": version.timestamp_ms} if version.timestamp_ms is not None else {}),
        "deleted": version.deleted,
    }


def content(version: SchemaVersion, schema: str | None = None) -> dict[str, Any]:
    """A schema without the place where it is registered."""
    out: dict[str, Any] = {"guid": version.guid, "schemaType": version.schema_type}
    if version.references:
        out["references"] = [reference.json() for reference in version.references]
    if version.metadata:
        out["metadata"] = version.metadata
    if version.rule_set:
        out["ruleSet"] = version.rule_set
    return out | {"schema": version.schema if schema is None else schema}
