"""/subjects and /compatibility."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from pipeline.registry import answers, asking, deleting, errors, registering, subjects
from pipeline.registry.answers import Answer
from pipeline.registry.app_context import look, of, write
from pipeline.registry.records import SchemaVersion
from pipeline.registry.schemas import tree_of
from pipeline.registry.state import RegistryState
from pipeline.schema.canonical import canonical_text, resolved_text


async def list_subjects(request: Request) -> Response:
    names = of(request).state.subject_names(
        prefix=request.query_params.get("subjectPrefix", subjects.WILDCARD_PREFIX),
        deleted=asking.flag(request, "deleted"),
        only_deleted=asking.flag(request, "deletedOnly"),
    )
    return Answer(asking.page(request, names))


async def look_up_schema(request: Request) -> Response:
    name = asking.subject(request)
    wanted, normalize, deleted = await asking.schema_request(request), _normalize(request, name), asking.flag(request, "deleted")
    found = await look(request, lambda state: registering.look_up(state, name, wanted, normalize=normalize, deleted=deleted))
    return Answer(answers.whole(found, formatted(of(request).state, found, request)))


async def delete_subject(request: Request) -> Response:
    name, permanent = asking.subject(request), asking.flag(request, "permanent")
    return Answer(await write(request, lambda state: deleting.delete_subject(state, name, permanent=permanent)))


async def list_versions(request: Request) -> Response:
    name = asking.subject(request)
    only, negative = asking.flag(request, "deletedOnly"), asking.flag(request, "deletedAsNegative")
    deleted = asking.flag(request, "deleted") or only

    def find(state: RegistryState) -> list[int]:
        if not state.has_subject(name, deleted=deleted):
            raise errors.subject_not_found(name)
        found = state.versions(name, deleted=deleted or negative)
        if only and not negative:
            found = [one for one in found if one.deleted]
        return [-one.version if negative and one.deleted else one.version for one in found]

    return Answer(asking.page(request, await look(request, find)))


async def register(request: Request) -> Response:
    name = asking.subject(request)
    wanted, normalize, force = await asking.schema_request(request), _normalize(request, name), asking.flag(request, "force")
    if not subjects.is_valid(name):
        raise errors.invalid_subject(name)
    found: SchemaVersion = await write(
        request, lambda state: registering.register(state, name, wanted, normalize=normalize, force=force)
    )
    schema = formatted(of(request).state, found, request)
    return Answer({"id": found.id, "version": found.version, **answers.content(found, schema)})


async def get_version(request: Request) -> Response:
    found = await _version(request)
    return Answer(answers.whole(found, formatted(of(request).state, found, request)))


async def get_version_schema(request: Request) -> Response:
    found = await _version(request)
    return answers.plain_schema(formatted(of(request).state, found, request))


async def delete_version(request: Request) -> Response:
    name, number, permanent = asking.subject(request), asking.version(request), asking.flag(request, "permanent")
    return Answer(await write(request, lambda state: deleting.delete_version(state, name, number, permanent=permanent)))


async def referenced_by(request: Request) -> Response:
    found, deleted = await _version(request, deleted=True), asking.flag(request, "deleted")
    referrers = of(request).state.referrers(found.subject, found.version, deleted=deleted)
    return Answer(asking.page(request, sorted({one.id for one in referrers})))


async def latest_with_metadata(request: Request) -> Response:
    name, deleted = asking.subject(request), asking.flag(request, "deleted")
    keys, values = request.query_params.getlist("key"), request.query_params.getlist("value")
    wanted = dict(zip(keys, values, strict=False))

    def find(state: RegistryState) -> SchemaVersion:
        if not state.has_subject(name, deleted=deleted):
            raise errors.subject_not_found(name)
        for one in reversed(state.versions(name, deleted=deleted)):
            properties = (one.metadata or {}).get("properties")
            if isinstance(properties, dict) and wanted.items() <= properties.items():
                return one
        raise errors.schema_not_found()

    return Answer(answers.whole(await look(request, find)))


async def test_compatibility(request: Request) -> Response:
    name, verbose = asking.subject(request), asking.flag(request, "verbose")
    number = asking.version(request) if "version" in request.path_params else None
    wanted, normalize = await asking.schema_request(request), _normalize(request, name)
    try:
        messages = await look(
            request, lambda state: registering.check_compatibility(state, name, wanted, number, normalize=normalize)
        )
    except errors.RegistryError as error:
        if not (verbose and error.code == 42201):
            raise
        messages = [error.message]
    answer = {"is_compatible": not messages}
    return Answer(answer | {"messages": messages} if verbose else answer)


def formatted(state: RegistryState, version: SchemaVersion, request: Request) -> str:
    """The schema's text, with its references written out if ``format=resolved``."""
    wanted = request.query_params.get("format", "").strip().lower()
    if wanted == "resolved" and version.schema_type == "AVRO":
        return resolved_text(tree_of(state, version))
    if wanted == "default" and version.schema_type == "AVRO":
        return canonical_text(tree_of(state, version))
    return version.schema  # formats not known are not an error: newer clients may know more


async def _version(request: Request, *, deleted: bool = False) -> SchemaVersion:
    name, number = asking.subject(request), asking.version(request)
    with_deleted = deleted or asking.flag(request, "deleted")

    def find(state: RegistryState) -> SchemaVersion:
        found = state.version(name, number, deleted=with_deleted)
        if found is not None:
            return found
        if not state.has_subject(name, deleted=with_deleted):
            raise errors.subject_not_found(name)
        raise errors.version_not_found(number)

    return await look(request, find)


def _normalize(request: Request, name: str) -> bool:
    return asking.flag(request, "normalize") or of(request).state.setting_in_scope("CONFIG", name).get("normalize") is True


ROUTES = [
    Route("/subjects", list_subjects, methods=["GET"]),
    Route("/subjects/{subject}", look_up_schema, methods=["POST"]),
    Route("/subjects/{subject}", delete_subject, methods=["DELETE"]),
    Route("/subjects/{subject}/metadata", latest_with_metadata, methods=["GET"]),
    Route("/subjects/{subject}/versions", list_versions, methods=["GET"]),
    Route("/subjects/{subject}/versions", register, methods=["POST"]),
    Route("/subjects/{subject}/versions/{version}", get_version, methods=["GET"]),
    Route("/subjects/{subject}/versions/{version}", delete_version, methods=["DELETE"]),
    Route("/subjects/{subject}/versions/{version}/schema", get_version_schema, methods=["GET"]),
    Route("/subjects/{subject}/versions/{version}/referencedby", referenced_by, methods=["GET"]),
    Route("/compatibility/subjects/{subject}/versions", test_compatibility, methods=["POST"]),
    Route("/compatibility/subjects/{subject}/versions/{version}", test_compatibility, methods=["POST"]),
]
