"""Registering a schema, looking one up, testing compatibility: decisions over a state. Pure.

A decision is the records to write and the answer that holds once they are in the topic. If anything else got into the
topic first, it was made on an old state, is not written, and is made again.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from pipeline.errors import SchemaError
from pipeline.registry import errors, subjects
from pipeline.registry.records import Raw, SchemaVersion, erase_schema, write_schema
from pipeline.registry.schemas import Judged, SchemaRequest, judge, tree_of
from pipeline.registry.state import RegistryState
from pipeline.schema.compatibility import Level, check

IMPORTING = frozenset({"IMPORT", "FORWARD"})
READ_ONLY = frozenset({"READONLY", "READONLY_OVERRIDE"})


@dataclass(frozen=True, slots=True)
class Decision:
    """What to write (nothing: the answer holds already) and what to say."""

    answer: Any
    records: list[Raw] = field(default_factory=list)


def check_writable(state: RegistryState, subject: str | None) -> None:
    if state.mode(subject) in READ_ONLY:
        context = subjects.context_of(subject)
        raise errors.not_permitted(f"Subject {subject} in context {context} is in read-only mode")


def register(
    state: RegistryState, subject: str, request: SchemaRequest, *, normalize: bool = False, force: bool = False
) -> Decision:
    """The version under which the schema is registered; ``answer`` is a ``SchemaVersion``.

    ``force`` leaves the compatibility check out, as the mode IMPORT does.
    """
    context = subjects.context_of(subject)
    mode = _check_mode(state, subject, request)
    judged = judge(state, subject, request, normalize=normalize, strict=mode not in IMPORTING)
    every = state.versions(subject, deleted=True)
    live = [one for one in every if not one.deleted]
    same = find_same(state, judged, live)
    if same is not None and request.version <= 0 and request.id in (-1, same.id):
        return Decision(same)
    existing_id = state.id_of(judged.guid, context)
    if existing_id is None and same is not None:
        existing_id = same.id
    if not force and mode not in IMPORTING:
        messages = incompatibilities(state, subject, judged, live)
        if messages:
            raise errors.incompatible(subject, messages)
    schema_id = _choose_id(state, context, judged, existing_id)
    version = max((one.version for one in every), default=0) + 1
    if request.version > 0 and request.version != version:
        if mode not in IMPORTING:
            raise errors.invalid_schema("Version is not one more than previous version")
        version = request.version
    value = SchemaVersion(
        subject=subject,
        version=version,
        id=schema_id,
        schema=judged.request.schema,
        references=judged.request.references,
        metadata=judged.request.metadata,
        rule_set=judged.request.rule_set,
    )
    # A deleted version of the same schema would be a second version of it, so it goes, unless something refers to it.
    gone = [one for one in every if one.deleted and one.id == schema_id and one.version < version]
    erased = [erase_schema(subject, one.version) for one in gone if not state.referrers(subject, one.version, deleted=True)]
    return Decision(value, [*erased, write_schema(value)])


def _check_mode(state: RegistryState, subject: str, request: SchemaRequest) -> str:
    check_writable(state, subject)
    mode, context = state.mode(subject), subjects.context_of(subject)
    if request.id >= 0 and mode not in IMPORTING:
        raise errors.not_permitted(f"Subject {subject} in context {context} is not in import mode")
    if request.id < 0 and mode != "READWRITE":
        raise errors.not_permitted(f"Subject {subject} in context {context} is not in read-write mode")
    return mode


def _choose_id(state: RegistryState, context: str, judged: Judged, existing: int | None) -> int:
    given = judged.request.id
    if given < 0:
        return existing if existing is not None else state.next_id(context)
    if existing is not None and existing != given:
        raise errors.id_does_not_match(existing, given)
    if any(held.guid != judged.guid for held in state.by_id(given, context)):
        raise errors.not_permitted(f"Overwrite new schema with id {given} in context {context} is not permitted.")
    return given


def find_same(state: RegistryState, judged: Judged, versions: list[SchemaVersion]) -> SchemaVersion | None:
    """The newest of ``versions`` that is this schema, also if another registry stored it in another canonical form."""
    for version in reversed(versions):
        if version.guid == judged.guid:
            return version
    for version in reversed(versions):
        if version.schema_type != "AVRO" or version.references != judged.request.references:
            continue
        try:
            again = judge(state, version.subject, _as_request(version), strict=False)
        except errors.RegistryError:
            continue
        if again.guid == judged.guid:
            return version
    return None


def _as_request(version: SchemaVersion) -> SchemaRequest:
    return SchemaRequest(version.schema, "AVRO", version.references, version.metadata, version.rule_set)


def look_up(
    state: RegistryState, subject: str, request: SchemaRequest, *, normalize: bool = False, deleted: bool = False
) -> SchemaVersion:
    """The version of ``subject`` that is this schema. Raises 40401 or 40403."""
    if not state.has_subject(subject, deleted=deleted):
        raise errors.subject_not_found(subject)
    judged = judge(state, subject, request, normalize=normalize, strict=False)
    found = find_same(state, judged, state.versions(subject, deleted=deleted))
    if found is None:
        raise errors.schema_not_found()
    return found


def check_compatibility(
    state: RegistryState, subject: str, request: SchemaRequest, version: int | None, *, normalize: bool = False
) -> list[str]:
    """Why the schema may not be registered, by the subject's level, judged against one version or (None) as registering
    would. Empty: it may. -1 is the latest version, and a subject without versions takes anything."""
    if version is None:
        previous = state.versions(subject)
    else:
        found = state.version(subject, version)
        if found is None and version != -1:
            raise errors.version_not_found(version)
        previous = [found] if found is not None else []
    return incompatibilities(state, subject, judge(state, subject, request, normalize=normalize), previous)


def incompatibilities(state: RegistryState, subject: str, judged: Judged, previous: list[SchemaVersion]) -> list[str]:
    """Messages why ``judged`` may not follow ``previous`` (ascending): the reasons, then the level that asks for them."""
    level = Level(state.level(subject))
    group = state.setting_in_scope("CONFIG", subject).get("compatibilityGroup")
    if group:
        own = _group(judged.request.metadata, group)
        previous = [one for one in previous if _group(one.metadata, group) == own]
    if level is Level.NONE or not previous:
        return []
    for one in reversed(previous if level.transitive else previous[-1:]):
        try:
            messages = check(judged.tree.root, [tree_of(state, one).root], level)
        except SchemaError as error:
            raise errors.invalid_schema(str(error)) from error
        if messages:
            return [*messages, f"{{oldSchemaVersion: {one.version}}}", f"{{compatibility: '{level}'}}"]
    return []


def _group(metadata: dict[str, Any] | None, group: str) -> Any:
    properties = (metadata or {}).get("properties")
    return properties.get(group) if isinstance(properties, dict) else None
