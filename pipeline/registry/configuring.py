"""Compatibility level and mode, for all or for a subject. Decisions over a state. Pure."""

from __future__ import annotations

from typing import Any, Final

from pipeline.registry import errors, subjects
from pipeline.registry.records import Raw, erase_schema, write_max_ids, write_setting
from pipeline.registry.registering import Decision, check_writable
from pipeline.registry.state import DEFAULT_LEVEL, DEFAULT_MODE, RegistryState
from pipeline.schema.compatibility import Level

MODES: Final = frozenset({"READWRITE", "READONLY", "READONLY_OVERRIDE", "IMPORT", "FORWARD"})
# Other fields of a request are not known and not kept.
_FIELDS: Final[tuple[str, ...]] = (
    "alias",
    "aliasForDeks",
    "normalize",
    "validateFields",
    "validateNewSchemas",
    "validateRules",
    "compatibilityPolicy",
    "compatibilityGroup",
    "defaultMetadata",
    "overrideMetadata",
    "defaultRuleSet",
    "overrideRuleSet",
)


def set_config(state: RegistryState, subject: str | None, request: dict[str, Any]) -> Decision:
    """Changes the fields that ``request`` names; null takes one away. ``answer`` is what was asked for."""
    level = request.get("compatibility")
    if level is not None and (not isinstance(level, str) or level.upper() not in Level.__members__):
        raise errors.invalid_level()
    if subject is not None and not subjects.is_valid(subject, for_setting=True):
        raise errors.invalid_subject(subject)
    check_writable(state, subject)
    value = dict(state.setting("CONFIG", subject) or {})
    changes: dict[str, Any] = {name: request[name] for name in _FIELDS if name in request}
    if "compatibility" in request:
        changes["compatibilityLevel"] = level.upper() if isinstance(level, str) else None
    value = {name: content for name, content in {**value, **changes}.items() if content not in (None, "", {}, [])}
    answer = {"compatibility" if name == "compatibilityLevel" else name: content for name, content in changes.items()}
    return Decision(answer, [write_setting("CONFIG", subject, value)])


def get_config(state: RegistryState, subject: str | None, *, default_to_global: bool = False) -> dict[str, Any]:
    """A subject's own config, or with ``default_to_global`` the one that counts for it. Raises 40408."""
    if subject is not None and not default_to_global:
        own = state.setting("CONFIG", subject)
        if own is None:
            raise errors.config_not_found(subject)
        return {"compatibilityLevel": DEFAULT_LEVEL, **own}
    return {"compatibilityLevel": DEFAULT_LEVEL, **state.setting_in_scope("CONFIG", subject)}


def set_mode(state: RegistryState, subject: str | None, request: dict[str, Any], *, force: bool = False) -> Decision:
    """Sets the mode; null takes it away. IMPORT needs a place without schemas, unless forced."""
    mode = request.get("mode")
    if subject is not None and not subjects.is_valid(subject, for_setting=True):
        raise errors.invalid_subject(subject)
    if mode is not None and (not isinstance(mode, str) or mode.upper() not in MODES):
        raise errors.invalid_mode()
    if mode is None:
        return Decision({"mode": None}, [write_setting("MODE", subject, None)])
    mode = mode.upper()
    if mode == "FORWARD" and subject is not None and subjects.context_of(subject) != subjects.GLOBAL_CONTEXT:
        raise errors.invalid_mode("Forward mode only supported on global level")
    records: list[Raw] = []
    if mode == "IMPORT" and state.mode(subject) != "IMPORT" and not force:
        records = _make_room(state, subject)
    return Decision({"mode": mode}, [*records, write_setting("MODE", subject, {"mode": mode})])


def _make_room(state: RegistryState, subject: str | None) -> list[Raw]:
    """Imported ids must not meet others: refuses where schemas are, erases those that are only softly deleted."""
    context, name = subjects.split(subject)
    every = state.subject_names(deleted=True)
    names = [one for one in every if (one == subject if name else subjects.context_of(one) == context)]
    records = []
    for one in names:
        for version in state.versions(one, deleted=True):
            if not version.deleted:
                raise errors.not_permitted("Cannot import since found existing subjects")
            if any(other.subject not in names for other in state.referrers(one, version.version, deleted=True)):
                raise errors.reference_exists(one, version.version)
            records.append(erase_schema(one, version.version))
    return [write_max_ids(state.max_ids()), *records] if records else []


def get_mode(state: RegistryState, subject: str | None, *, default_to_global: bool = False) -> dict[str, Any]:
    """A subject's own mode, or with ``default_to_global`` the one that counts for it. Raises 40409."""
    if subject is not None and not default_to_global:
        own = state.setting("MODE", subject)
        if own is None:
            raise errors.mode_not_found(subject)
        return {"mode": own.get("mode", DEFAULT_MODE)}
    return {"mode": state.mode(subject)}
