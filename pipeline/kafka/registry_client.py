"""Schemas by id and by subject, through confluent-kafka's client, with a cache that lasts: an id never changes its schema.

A registry that is down delays new schemas only, never data whose ids are known. Only the registry's own words count: an
answer without one of its error codes (a proxy's page, a redirect) never makes a record a bad one. Thread-safe.
"""

from __future__ import annotations

import random
import threading
import time
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from confluent_kafka.schema_registry import Schema, SchemaRegistryClient
from confluent_kafka.schema_registry.error import SchemaRegistryError

from pipeline.config import Connection
from pipeline.errors import RegistryUnavailableError, SchemaError, StopError

CACHE_MAX = 10_000
TRY_S = 5.0
# What the registry does not have is asked again after this: a message that names a wrong id must not cost a request each time.
REFUSED_S = 2.0
REFUSED_MAX = 1_000
PAUSE_S_FIRST, PAUSE_S_MAX = 0.1, 2.0


class UnknownSchemaIdError(SchemaError):
    """The registry answers, and has no schema of this id."""


@dataclass(frozen=True, slots=True)
class Registered:
    """A version of a subject."""

    version: int
    id: int
    text: str


class RegistryClient:
    """See the module. Every call waits at most ``timeout_s``, trying again with backoff, then raises
    RegistryUnavailableError; what the registry refuses raises SchemaError at once; a redirect, or an answer that is not a
    registry's, raises StopError."""

    def __init__(self, connection: Connection, timeout_s: float = 15.0) -> None:
        self._url = connection.registry
        self._timeout_s = timeout_s
        settings: dict[str, Any] = {"url": connection.registry, "timeout": min(TRY_S, timeout_s), "max.retries": 0}
        if connection.registry_auth is not None:
            settings["basic.auth.user.info"] = connection.registry_auth.get_secret_value()
        self._client = SchemaRegistryClient(settings)
        self._lock = threading.Lock()
        self._texts: dict[int, str] = {}
        self._ids: dict[str, set[int]] = {}
        self._refused: dict[tuple[int, str], tuple[float, str]] = {}

    # -- by id -------------------------------------------------------------------------------------------------------

    def schema_text(self, schema_id: int) -> str:
        """The schema of an id as its writer registered it. Raises UnknownSchemaIdError."""
        with self._lock:
            text = self._texts.get(schema_id)
        if text is None:
            self._check_refused(schema_id, "")
            try:
                schema = self._call(f"read schema {schema_id}", self._client.get_schema, schema_id)
            except _RefusedError as error:
                why = self._refuse(schema_id, "", f"the registry has no schema {schema_id}: {error}")
                raise UnknownSchemaIdError(why) from None
            if (schema.schema_type or "AVRO") != "AVRO":
                raise UnknownSchemaIdError(f"schema {schema_id} is {schema.schema_type}, not AVRO")
            text = str(schema.schema_str)
            with self._lock:
                if len(self._texts) >= CACHE_MAX:
                    self._texts.clear()
                self._texts[schema_id] = text
        return text

    def belongs(self, schema_id: int, *subjects: str) -> bool:
        """Whether the id is a version of one of the subjects: a message may not name any schema that the registry has."""
        with self._lock:
            if any(schema_id in self._ids.get(subject, ()) for subject in subjects):
                return True
        try:
            self._check_refused(schema_id, "|".join(subjects))
        except UnknownSchemaIdError:
            return False
        found = [subject for subject in self.subjects_of(schema_id) if subject in subjects]
        if not found:
            self._refuse(schema_id, "|".join(subjects), f"schema {schema_id} is not of {' or '.join(subjects)}")
            return False
        with self._lock:
            self._ids.setdefault(found[0], set()).add(schema_id)
        return True

    def subjects_of(self, schema_id: int) -> list[str]:
        """The subjects that have this id among their versions; empty if none has."""
        try:
            return sorted(self._call(f"find the subjects of schema {schema_id}", self._subjects, schema_id))
        except _RefusedError:
            return []

    # -- by subject --------------------------------------------------------------------------------------------------

    def register(self, subject: str, text: str) -> int:
        """Register a schema, or find it registered; returns its id. Raises SchemaError where it is not compatible."""
        try:
            found = self._call(f"register {subject}", self._client.register_schema, subject, Schema(text, "AVRO"))
        except _RefusedError as error:
            raise SchemaError(f"the registry refuses this schema for {subject}: {error}") from error
        with self._lock:
            self._texts[found] = text
            self._ids.setdefault(subject, set()).add(found)
        return int(found)

    def latest(self, subject: str) -> tuple[int, str] | None:
        """(id, text) of the subject's newest version; None if there is no such subject."""
        found = self.version(subject)
        return None if found is None else (found.id, found.text)

    def version(self, subject: str, version: int | None = None) -> Registered | None:
        """A version of the subject, the newest by default; None where it is not there."""
        try:
            if version is None:
                found = self._call(f"read {subject}", self._client.get_latest_version, subject)
            else:
                found = self._call(f"read {subject}", self._client.get_version, subject, version)
        except _RefusedError:
            return None
        return Registered(int(found.version), int(found.schema_id), str(found.schema.schema_str))

    def versions(self, subject: str) -> list[Registered]:
        """Every version of the subject, oldest first; none if there is no such subject."""
        try:
            numbers = self._call(f"list the versions of {subject}", self._client.get_versions, subject)
        except _RefusedError:
            return []
        found = (self.version(subject, number) for number in sorted(numbers))
        return [one for one in found if one is not None]

    def subjects(self) -> list[str]:
        """All subjects, sorted."""
        return sorted(self._call("list the subjects", self._client.get_subjects))

    def level(self, subject: str) -> str:
        """The compatibility level that counts for the subject: its own, or the registry's."""
        try:
            return str(self._call(f"read the level of {subject}", self._client.get_compatibility, subject))
        except _RefusedError:
            return str(self._call("read the level", self._client.get_compatibility))

    def would_take(self, subject: str, text: str) -> bool:
        """Whether the registry says that the schema may be the subject's next version; True for a new subject."""
        schema = Schema(text, "AVRO")
        try:
            return bool(self._call(f"ask about {subject}", self._client.test_compatibility, subject, schema))
        except _RefusedError:
            return self.version(subject) is None

    # -- inside ------------------------------------------------------------------------------------------------------

    def _subjects(self, schema_id: int) -> list[str]:
        return [version.subject for version in self._client.get_schema_versions(schema_id)]

    def _refuse(self, schema_id: int, subjects: str, why: str) -> str:
        with self._lock:
            if len(self._refused) >= REFUSED_MAX:
                self._refused.clear()
            self._refused[schema_id, subjects] = (time.monotonic() + REFUSED_S, why)
        return why

    def _check_refused(self, schema_id: int, subjects: str) -> None:
        with self._lock:
            until, why = self._refused.get((schema_id, subjects), (0.0, ""))
        if time.monotonic() < until:
            raise UnknownSchemaIdError(why)

    def _call(self, doing: str, function: Any, *arguments: Any) -> Any:
        deadline = time.monotonic() + self._timeout_s
        pause_s = PAUSE_S_FIRST
        while True:
            try:
                return function(*arguments)
            except SchemaRegistryError as error:
                problem = self._judged(doing, error)
            except Exception as error:  # noqa: BLE001 - the client's HTTP library raises many kinds; all mean: no answer
                problem = type(error).__name__
            if time.monotonic() + pause_s > deadline:
                raise RegistryUnavailableError(
                    f"could not {doing}: no answer from the registry at {self._where} within {self._timeout_s:g} s ({problem}): "
                    "is it up? (`headrace status`)"
                ) from None
            time.sleep(pause_s * random.uniform(0.5, 1.0))
            pause_s = min(pause_s * 2, PAUSE_S_MAX)

    def _judged(self, doing: str, error: SchemaRegistryError) -> str:
        """What is wrong with the registry for now; raises where asking again would not help."""
        status, code = error.http_status_code, error.error_code or -1
        if status in (401, 403):
            raise StopError(f"could not {doing} at {self._where}: not allowed: check registry_auth") from None
        if 300 <= status < 400:
            raise StopError(
                f"could not {doing}: {self._where} sends us elsewhere (HTTP {status}), which is refused: set `registry` in "
                "headrace.yml to where the registry really is"
            ) from None
        if status >= 500 or status in (408, 429):
            return f"HTTP {status}" + (f": {error.error_message}" if code > 0 else "")
        # Confluent's own codes have five digits; Karapace says 409 and 422 for schemas that it refuses.
        if code < 10_000 and code not in (409, 422):
            raise StopError(
                f"could not {doing}: what answers at {self._where} is no schema registry (HTTP {status}): correct `registry` "
                "in headrace.yml"
            ) from None
        raise _RefusedError(error.error_message) from None

    @property
    def _where(self) -> str:
        parts = urlsplit(self._url)
        return f"{parts.scheme}://{parts.hostname}" + (f":{parts.port}" if parts.port else "")


class _RefusedError(Exception):
    pass
