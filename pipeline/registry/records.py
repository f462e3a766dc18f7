"""Records of the topic ``_schemas``: keys and values in Confluent's own JSON, so that either registry reads the other's.

Key fields and their order follow Confluent's classes (a compacted topic compares keys byte by byte: the same key written
in another order would be another key, and the older value would come back after a delete). Values omit what is empty.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Final
from uuid import UUID

from pipeline.errors import DecodeError

NOOP_KEY: Final = b'{"keytype":"NOOP","magic":0}'
# Not known to Confluent's registry, which skips every NOOP: keeps ids from being given out again after a permanent delete.
MAX_ID_KEY: Final = b'{"keytype":"NOOP","magic":0,"keeps":"max_id"}'

Raw = tuple[bytes, bytes | None]


@dataclass(frozen=True, slots=True, order=True)
class Reference:
    """``name`` as the schema uses it, and the subject and version that define it."""

    name: str
    subject: str
    version: int

    def json(self) -> dict[str, Any]:
        return {"name": self.name, "subject": self.subject, "version": self.version}


@dataclass(frozen=True)
class SchemaVersion:
    """One version of a subject. ``metadata`` and ``rule_set`` are kept and given back as they came."""

    subject: str
    version: int
    id: int
    schema: str
    references: tuple[Reference, ...] = ()
    schema_type: str = "AVRO"
    metadata: dict[str, Any] | None = None
    rule_set: dict[str, Any] | None = None
    deleted: bool = False
    timestamp_ms: int | None = None

    @cached_property
    def guid(self) -> str:
        return guid_of(self.schema, self.references, self.metadata, self.rule_set)

    def soft_deleted(self) -> SchemaVersion:
        return replace(self, deleted=True)


@dataclass(frozen=True, slots=True)
class SchemaRecord:
    """A version written, or with ``value`` None deleted for good."""

    subject: str
    version: int
    value: SchemaVersion | None


@dataclass(frozen=True, slots=True)
class SettingRecord:
    """Config or mode of a subject (None: of all). ``value`` None takes the setting away."""

    kind: str  # CONFIG or MODE
    subject: str | None
    value: dict[str, Any] | None


@dataclass(frozen=True, slots=True)
class DeleteSubjectRecord:
    """All versions up to ``version`` are soft-deleted."""

    subject: str
    version: int


@dataclass(frozen=True, slots=True)
class MaxIdRecord:
    """Ids up to these, per context, were given out, whatever versions are left."""

    max_ids: dict[str, int]


@dataclass(frozen=True, slots=True)
class IgnoredRecord:
    """A kind of record that carries nothing for us (NOOP, associations, contexts without schemas)."""

    kind: str


Record = SchemaRecord | SettingRecord | DeleteSubjectRecord | MaxIdRecord | IgnoredRecord


def guid_of(schema: str, references: tuple[Reference, ...], metadata: Any = None, rule_set: Any = None) -> str:
    """The identity of a schema wherever it is registered: the MD5 of its canonical text and all that belongs to it."""
    digest = hashlib.md5(schema.encode(), usedforsecurity=False)
    for reference in references:
        digest.update(reference.name.encode())
        digest.update(reference.subject.encode())
        digest.update(reference.version.to_bytes(4, "big", signed=True))
    for extra in (metadata, rule_set):
        if extra is not None:
            digest.update(b"\x01" + json.dumps(extra, sort_keys=True, separators=(",", ":")).encode())
    return str(UUID(bytes=digest.digest()))


def schema_key(subject: str, version: int) -> bytes:
    return _json({"keytype": "SCHEMA", "subject": subject, "version": version, "magic": 1})


def write_schema(value: SchemaVersion) -> Raw:
    body: dict[str, Any] = {"subject": value.subject, "version": value.version, "id": value.id, "schemaType": value.schema_type}
    if value.references:
        body["references"] = [reference.json() for reference in value.references]
    if value.metadata:
        body["metadata"] = value.metadata
    if value.rule_set:
        body["ruleSet"] = value.rule_set
    body |= {"schema": value.schema, "deleted": value.deleted}
    return schema_key(value.subject, value.version), _json(body)


def erase_schema(subject: str, version: int) -> Raw:
    return schema_key(subject, version), None


def write_setting(kind: str, subject: str | None, value: dict[str, Any] | None) -> Raw:
    """``kind`` is CONFIG or MODE. Without a value the setting goes."""
    key = {"keytype": kind, "subject": subject, "magic": 0} if subject else {"keytype": kind, "magic": 0}
    return _json(key), None if value is None else _json({"subject": subject, **value} if subject else value)


def write_delete_subject(subject: str, version: int) -> Raw:
    return _json({"keytype": "DELETE_SUBJECT", "subject": subject, "magic": 0}), _json({"subject": subject, "version": version})


def write_max_ids(max_ids: dict[str, int]) -> Raw:
    return MAX_ID_KEY, _json({"maxIds": max_ids})


def decode(key: bytes | None, value: bytes | None, timestamp_ms: int | None = None) -> Record:
    """The record that these bytes are. Raises ``DecodeError`` (without their content) if they are none."""
    try:
        names = json.loads(key or b"")
        kind = names["keytype"]
        if kind == "SCHEMA":
            return _schema(names, value, timestamp_ms)
        if kind in ("CONFIG", "MODE"):
            return SettingRecord(kind, names.get("subject") or None, _object(value))
        if kind == "DELETE_SUBJECT" and value is not None:
            body = _required(value)
            return DeleteSubjectRecord(str(body["subject"]), int(body["version"]))
        if kind == "NOOP" and names.get("keeps") == "max_id" and value is not None:
            return MaxIdRecord({str(context): int(top) for context, top in _required(value)["maxIds"].items()})
        return IgnoredRecord(str(kind))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise DecodeError(f"a record of the schemas topic is not in Confluent's format ({type(error).__name__})") from error


def _schema(names: dict[str, Any], value: bytes | None, timestamp_ms: int | None) -> SchemaRecord:
    subject, version = names["subject"], int(names["version"])
    body = _object(value)
    if not isinstance(subject, str):
        raise TypeError("subject")
    if body is None:
        return SchemaRecord(subject, version, None)
    references = tuple(
        Reference(str(one["name"]), str(one["subject"]), int(one["version"])) for one in body.get("references") or ()
    )
    schema, schema_id = body["schema"], body["id"]
    if not isinstance(schema, str) or type(schema_id) is not int:
        raise TypeError("schema")
    parsed = SchemaVersion(
        subject=subject,
        version=version,
        id=schema_id,
        schema=schema,
        references=references,
        schema_type=body.get("schemaType") or "AVRO",
        metadata=body.get("metadata") or None,
        rule_set=body.get("ruleSet") or None,
        deleted=bool(body.get("deleted", False)),
        timestamp_ms=timestamp_ms,
    )
    return SchemaRecord(subject, version, parsed)


def _object(value: bytes | None) -> dict[str, Any] | None:
    return None if not value else _required(value)


def _required(value: bytes) -> dict[str, Any]:
    body = json.loads(value)
    if not isinstance(body, dict):
        raise TypeError("value")
    return body


def _json(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
