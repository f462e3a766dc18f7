"""/schemas, /contexts and what the registry says of itself."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from pipeline.registry import answers, asking, errors, subjects
from pipeline.registry.answers import Answer
from pipeline.registry.app_context import look, of
from pipeline.registry.records import SchemaVersion
from pipeline.registry.routes_subjects import formatted
from pipeline.registry.state import RegistryState


async def root(request: Request) -> Response:
    return Answer({})


async def schema_types(request: Request) -> Response:
    return Answer(["AVRO"])


async def list_contexts(request: Request) -> Response:
    return Answer(asking.page(request, of(request).state.contexts()))


async def list_schemas(request: Request) -> Response:
    deleted, latest = asking.flag(request, "deleted"), asking.flag(request, "latestOnly")
    prefix = request.query_params.get("subjectPrefix", subjects.WILDCARD_PREFIX)
    state = of(request).state
    found: list[SchemaVersion] = []
    for name in state.subject_names(prefix=prefix, deleted=deleted):
        versions = state.versions(name, deleted=deleted)
        found += versions[-1:] if latest else versions
    return Answer([answers.whole(one) for one in asking.page(request, found)])


async def get_schema(request: Request) -> Response:
    found = await _by_id(request)
    schema = formatted(of(request).state, found, request)
    answer: dict[str, Any] = answers.content(found, schema)
    if "subject" in request.query_params:
        answer = {"subject": found.subject, "version": found.version} | answer
    if asking.flag(request, "fetchMaxId"):
        context = subjects.context_of(found.subject)
        answer["maxId"] = of(request).state.next_id(context) - 1
    return Answer(answer)


async def get_schema_text(request: Request) -> Response:
    found = await _by_id(request)
    return answers.plain_schema(formatted(of(request).state, found, request))


async def subjects_of_id(request: Request) -> Response:
    found = await _uses(request)
    return Answer(asking.page(request, list(dict.fromkeys(one.subject for one in found))))


async def versions_of_id(request: Request) -> Response:
    found = await _uses(request)
    return Answer(asking.page(request, [{"subject": one.subject, "version": one.version} for one in found]))


async def get_by_guid(request: Request) -> Response:
    guid = asking.text(request, "guid").lower()

    def find(state: RegistryState) -> SchemaVersion:
        for _, _, versions in _places(state, guid):
            return versions[0]
        raise errors.schema_not_found(guid)

    found = await look(request, find)
    return Answer(answers.content(found, formatted(of(request).state, found, request)))


async def ids_of_guid(request: Request) -> Response:
    guid = asking.text(request, "guid").lower()
    places = await look(request, lambda state: list(_places(state, guid)))
    return Answer([{"context": context, "id": schema_id} for context, schema_id, _ in places])


def _places(state: RegistryState, guid: str) -> list[tuple[str, int, list[SchemaVersion]]]:
    found = []
    for context in state.contexts():
        schema_id = state.id_of(guid, context)
        versions = state.by_id(schema_id, context) if schema_id is not None else []
        if schema_id is not None and versions:
            found.append((context, schema_id, versions))
    return found


def _find_id(state: RegistryState, request: Request) -> list[SchemaVersion]:
    """All versions under the id in the path: in the context of the parameter ``subject``, else wherever that subject is."""
    raw = asking.text(request, "id")
    if not raw.isascii() or not raw.isdigit() or len(raw) > 10:
        raise errors.schema_not_found(raw[:40])
    subject = request.query_params.get("subject") or None
    context = subjects.context_of(subject)
    found = state.by_id(int(raw), context)
    if not found and subject and context == subjects.DEFAULT_CONTEXT:
        for other in state.contexts():
            found = [one for one in state.by_id(int(raw), other) if subjects.split(one.subject)[1] == subject]
            if found:
                break
    if not found:
        raise errors.schema_not_found(int(raw))
    return found


async def _by_id(request: Request) -> SchemaVersion:
    wanted = request.query_params.get("subject")

    def find(state: RegistryState) -> SchemaVersion:
        found = _find_id(state, request)
        # Under the subject that was asked for, if it is there; a live version before one that was deleted.
        return min(found, key=lambda one: (one.subject != wanted, one.deleted, one.subject, one.version))

    return await look(request, find)


async def _uses(request: Request) -> list[SchemaVersion]:
    deleted = asking.flag(request, "deleted")
    found = await look(request, lambda state: _find_id(state, request))
    return [one for one in found if deleted or not one.deleted]


async def server_id(request: Request) -> Response:
    return Answer({"scope": {"path": [], "clusters": {"schema-registry-cluster": "headrace"}}, "id": ""})


async def server_version(request: Request) -> Response:
    return Answer({"version": "8.0.0", "commitId": "headrace"})


ROUTES = [
    Route("/", root, methods=["GET"]),
    Route("/schemas", list_schemas, methods=["GET"]),
    Route("/schemas/types", schema_types, methods=["GET"]),
    Route("/schemas/ids/{id}", get_schema, methods=["GET"]),
    Route("/schemas/ids/{id}/schema", get_schema_text, methods=["GET"]),
    Route("/schemas/ids/{id}/subjects", subjects_of_id, methods=["GET"]),
    Route("/schemas/ids/{id}/versions", versions_of_id, methods=["GET"]),
    Route("/schemas/guids/{guid}", get_by_guid, methods=["GET"]),
    Route("/schemas/guids/{guid}/ids", ids_of_guid, methods=["GET"]),
    Route("/contexts", list_contexts, methods=["GET"]),
    Route("/v1/metadata/id", server_id, methods=["GET"]),
    Route("/v1/metadata/version", server_version, methods=["GET"]),
]
