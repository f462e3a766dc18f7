"""What the topic says: the replay of its records into subjects, versions, ids and settings. No I/O, no clock.

Every registry on a topic applies the same records in the same order and so holds the same state. What is kept must also
be what remains after the topic was compacted (the last record of each key), so a rule never depends on a record that a
later one of the same key replaces. The one exception is Confluent's own: a schema under an id that already means another
schema is left out, because an id must never change its meaning.

Thread safety: one thread applies, any thread asks. Each question is answered as of one moment.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from typing import Any, Final

from pipeline.registry import subjects
from pipeline.registry.records import (
    DeleteSubjectRecord,
    MaxIdRecord,
    Record,
    SchemaRecord,
    SchemaVersion,
    SettingRecord,
)

DEFAULT_LEVEL: Final = "BACKWARD"
DEFAULT_MODE: Final = "READWRITE"
Key = tuple[str, int]


class RegistryState:
    """Subjects, ids and settings as of the last record that was applied."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._subjects: dict[str, dict[int, SchemaVersion]] = {}
        self._by_id: dict[str, dict[int, dict[Key, None]]] = {}
        self._by_guid: dict[str, dict[str, int]] = {}
        self._referrers: dict[Key, dict[Key, None]] = {}
        self._settings: dict[tuple[str, str | None], dict[str, Any]] = {}
        self._max_ids: dict[str, int] = {}
        self.conflicts = 0

    # --- replay ---

    def apply(self, records: Iterable[Record]) -> None:
        """Applies records in the order of the topic."""
        with self._lock:
            for record in records:
                if isinstance(record, SchemaRecord):
                    self._apply_schema(record)
                elif isinstance(record, SettingRecord):
                    self._apply_setting(record)
                elif isinstance(record, DeleteSubjectRecord):
                    self._apply_delete(record)
                elif isinstance(record, MaxIdRecord):
                    for context, top in record.max_ids.items():
                        self.reserve_id(context, top)

    def reserve_id(self, context: str, schema_id: int) -> None:
        """Ids up to ``schema_id`` are never given out: they were used, or appear in the log without counting."""
        with self._lock:
            self._max_ids[context] = max(schema_id, self._max_ids.get(context, 0))

    def _apply_schema(self, record: SchemaRecord) -> None:
        key = (record.subject, record.version)
        context = subjects.context_of(record.subject)
        value = record.value
        # Also when the new value is left out: compaction takes the older value of the key away in any case.
        self._forget(key, context)
        if value is None:
            return
        self.reserve_id(context, value.id)
        if any(held.guid != value.guid for held in self._held(self._by_id.get(context, {}).get(value.id, {}))):
            self.conflicts += 1
            return
        self._subjects.setdefault(record.subject, {})[record.version] = value
        self._by_id.setdefault(context, {}).setdefault(value.id, {})[key] = None
        self._by_guid.setdefault(context, {})[value.guid] = value.id
        for reference in value.references:
            target = (subjects.beside(reference.subject, record.subject), reference.version)
            self._referrers.setdefault(target, {})[key] = None

    def _forget(self, key: Key, context: str) -> None:
        subject, version = key
        old = self._subjects.get(subject, {}).pop(version, None)
        if old is None:
            return
        if not self._subjects[subject]:
            del self._subjects[subject]
        holders = self._by_id[context][old.id]
        del holders[key]
        if not holders:
            del self._by_id[context][old.id]
            self._by_guid[context].pop(old.guid, None)
        for reference in old.references:
            target = (subjects.beside(reference.subject, subject), reference.version)
            self._referrers.get(target, {}).pop(key, None)

    def _apply_setting(self, record: SettingRecord) -> None:
        if record.value is None:
            self._settings.pop((record.kind, record.subject), None)
        else:
            self._settings[record.kind, record.subject] = {k: v for k, v in record.value.items() if k != "subject"}

    def _apply_delete(self, record: DeleteSubjectRecord) -> None:
        versions = self._subjects.get(record.subject, {})
        for number, value in versions.items():
            if number <= record.version and not value.deleted:
                versions[number] = value.soft_deleted()

    def _held(self, keys: Iterable[Key]) -> Iterator[SchemaVersion]:
        for subject, version in keys:
            value = self._subjects.get(subject, {}).get(version)
            if value is not None:
                yield value

    # --- subjects and versions ---

    def versions(self, subject: str, *, deleted: bool = False) -> list[SchemaVersion]:
        """Versions of a subject in ascending order; with ``deleted`` also the soft-deleted ones."""
        with self._lock:
            found = self._subjects.get(subject, {})
            return [found[number] for number in sorted(found) if deleted or not found[number].deleted]

    def version(self, subject: str, number: int, *, deleted: bool = False) -> SchemaVersion | None:
        """One version; -1 is the latest that is not deleted."""
        if number == -1:
            live = self.versions(subject)
            return live[-1] if live else None
        with self._lock:
            value = self._subjects.get(subject, {}).get(number)
            return value if value is not None and (deleted or not value.deleted) else None

    def has_subject(self, subject: str, *, deleted: bool = False) -> bool:
        """Whether the subject (``:.context:`` alone: any subject in it) has versions."""
        context, name = subjects.split(subject)
        with self._lock:
            if name or context == subjects.DEFAULT_CONTEXT:
                return bool(self.versions(subject, deleted=deleted))
            return any(self.versions(one, deleted=deleted) for one in self._subjects if subjects.context_of(one) == context)

    def subject_names(
        self, *, prefix: str = subjects.WILDCARD_PREFIX, deleted: bool = False, only_deleted: bool = False
    ) -> list[str]:
        """Sorted names. A subject counts as deleted when all its versions are."""
        with self._lock:
            names = []
            for name, versions in self._subjects.items():
                gone = all(value.deleted for value in versions.values())
                if (gone if only_deleted else deleted or not gone) and subjects.matches_prefix(name, prefix):
                    names.append(name)
            return sorted(names)

    def contexts(self) -> list[str]:
        with self._lock:
            return sorted({subjects.DEFAULT_CONTEXT, *(subjects.context_of(name) for name in self._subjects)})

    # --- ids ---

    def by_id(self, schema_id: int, context: str = subjects.DEFAULT_CONTEXT) -> list[SchemaVersion]:
        """All versions under an id, soft-deleted ones too, in the order in which they came."""
        with self._lock:
            return list(self._held(self._by_id.get(context, {}).get(schema_id, {})))

    def id_of(self, guid: str, context: str = subjects.DEFAULT_CONTEXT) -> int | None:
        with self._lock:
            return self._by_guid.get(context, {}).get(guid)

    def next_id(self, context: str) -> int:
        with self._lock:
            return self._max_ids.get(context, 0) + 1

    def max_ids(self) -> dict[str, int]:
        with self._lock:
            return dict(self._max_ids)

    def referrers(self, subject: str, version: int, *, deleted: bool = False) -> list[SchemaVersion]:
        """Versions that refer to this one; with ``deleted`` also the soft-deleted ones."""
        with self._lock:
            return [v for v in self._held(self._referrers.get((subject, version), {})) if deleted or not v.deleted]

    # --- settings ---

    def setting(self, kind: str, subject: str | None) -> dict[str, Any] | None:
        """CONFIG or MODE exactly as it was set for ``subject`` (None: for all), or None."""
        with self._lock:
            return self._settings.get((kind, subject))

    def setting_in_scope(self, kind: str, subject: str | None) -> dict[str, Any]:
        """What counts for ``subject``: its own, else its context's, else the one for all contexts."""
        context = subjects.context_of(subject)
        outer = None if context == subjects.DEFAULT_CONTEXT else f":{context}:"
        with self._lock:
            for scope in (subject, outer, f":{subjects.GLOBAL_CONTEXT}:"):
                found = self._settings.get((kind, scope))
                if found is not None:
                    return found
        return {}

    def settings_below(self, kind: str, scope: str | None) -> list[str]:
        """Subjects with a setting of their own in a context (``:.context:``; None: the default one)."""
        context = subjects.context_of(scope)
        with self._lock:
            return [s for k, s in self._settings if k == kind and s and s != scope and subjects.context_of(s) == context]

    def level(self, subject: str | None) -> str:
        return str(self.setting_in_scope("CONFIG", subject).get("compatibilityLevel") or DEFAULT_LEVEL)

    def mode(self, subject: str | None) -> str:
        return str(self.setting_in_scope("MODE", subject).get("mode") or DEFAULT_MODE)

    def counts(self) -> dict[str, int]:
        """Numbers for the metrics: subjects, versions, ids."""
        with self._lock:
            return {
                "subjects": len(self._subjects),
                "versions": sum(len(versions) for versions in self._subjects.values()),
                "ids": sum(len(ids) for ids in self._by_id.values()),
            }
