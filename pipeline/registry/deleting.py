"""Deleting: first softly (hidden, ids still answer), then for good. Decisions over a state. Pure."""

from __future__ import annotations

from typing import Any

from pipeline.registry import errors
from pipeline.registry.records import Raw, erase_schema, write_delete_subject, write_max_ids, write_schema, write_setting
from pipeline.registry.registering import Decision, check_writable
from pipeline.registry.state import RegistryState


def delete_version(state: RegistryState, subject: str, version: int, *, permanent: bool = False) -> Decision:
    """``answer`` is the number of the version. -1 is the latest that is not deleted."""
    found = state.version(subject, version, deleted=True)
    if found is None:
        if not state.has_subject(subject, deleted=True):
            raise errors.subject_not_found(subject)
        raise errors.version_not_found(version)
    if found.deleted and not permanent:
        raise errors.version_soft_deleted(subject, found.version)
    check_writable(state, subject)
    if state.referrers(subject, found.version, deleted=permanent):
        raise errors.reference_exists(subject, found.version)
    if not permanent:
        return Decision(found.version, [write_schema(found.soft_deleted())])
    if not found.deleted:
        raise errors.version_not_soft_deleted(subject, found.version)
    records = [*_keep_ids(state), erase_schema(subject, found.version)]
    if len(state.versions(subject, deleted=True)) == 1:
        records += _forget_settings(state, subject)
    return Decision(found.version, records)


def delete_subject(state: RegistryState, subject: str, *, permanent: bool = False) -> Decision:
    """``answer`` is the list of deleted versions."""
    every = state.versions(subject, deleted=True)
    if not every:
        raise errors.subject_not_found(subject)
    affected = [one for one in every if permanent or not one.deleted]
    if not affected:
        raise errors.subject_soft_deleted(subject)
    check_writable(state, subject)
    for one in affected:
        if any(other.subject != subject for other in state.referrers(subject, one.version, deleted=permanent)):
            raise errors.reference_exists(subject, one.version)
        if permanent and not one.deleted:
            raise errors.subject_not_soft_deleted(subject)
    numbers = [one.version for one in affected]
    if not permanent:
        return Decision(numbers, [write_delete_subject(subject, numbers[-1])])
    # Last version first: versions of one subject may refer to earlier ones.
    erased = [erase_schema(subject, number) for number in reversed(numbers)]
    return Decision(numbers, [*_keep_ids(state), *erased, *_forget_settings(state, subject)])


def _keep_ids(state: RegistryState) -> list[Raw]:
    # The erased record may be the only trace of the highest id. Once it is compacted away, a registry that starts would
    # give the id to another schema, and old messages would be decoded with that one.
    return [write_max_ids(state.max_ids())]


def _forget_settings(state: RegistryState, subject: str) -> list[Raw]:
    return [write_setting(kind, subject, None) for kind in ("MODE", "CONFIG") if state.setting(kind, subject) is not None]


def delete_setting(state: RegistryState, kind: str, subject: str | None, *, recursive: bool = False) -> Decision:
    """Takes CONFIG or MODE away from a subject (None: from all, so that the default counts again).

    ``answer`` is the setting as it was. ``recursive``, for a mode of a context or of all: those of its subjects go too.
    """
    if kind == "CONFIG":
        check_writable(state, subject)
    before: dict[str, Any] | None = state.setting(kind, subject)
    if before is None and subject is not None and not recursive:
        raise errors.subject_not_found(subject)
    records = [write_setting(kind, subject, None)] if before is not None else []
    if recursive and (subject is None or subject.endswith(":")):
        records += [write_setting(kind, one, None) for one in state.settings_below(kind, subject)]
    return Decision(before, records)
