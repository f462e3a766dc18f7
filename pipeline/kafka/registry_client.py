"""Schemas by id and by subject, through confluent-kafka's client, with a cache that lasts: an id never changes its schema.

A registry that is down delays new schemas only, never data whose ids are known. Thread-safe.
"""

from __future__ import annotations

import random
import threading
import time
from typing import Any
from urllib.parse import urlsplit

from confluent_kafka.schema_registry import Schema, SchemaRegistryClient
from confluent_kafka.schema_registry.error import SchemaRegistryError

from pipeline.config import Connection
from pipeline.errors import RegistryUnavailableError, SchemaError, StopError

CACHE_MAX = 10_000
TRY_S = 5.0


class UnknownSchemaIdError(SchemaError):
    """The registry answers, and has no schema of this id."""


class RegistryClient:
    """See the module. Every call waits at most ``timeout_s``, trying again with backoff, then raises
    RegistryUnavailableError; what the registry refuses raises SchemaError at once."""

    def __init__(self, connection: Connection, timeout_s: float = 15.0) -> None:
        self._url = connection.registry
        self._timeout_s = timeout_s
        settings: dict[str, Any] = {"url": connection.registry, "timeout": TRY_S, "max.retries": 0}
        if connection.registry_auth is not None:
            settings["basic.auth.user.info"] = connection.registry_auth.get_secret_value()
        self._client = SchemaRegistryClient(settings)
        self._lock = threading.Lock()
        self._texts: dict[int, str] = {}
        self._ids: dict[str, set[int]] = {}

    def schema_text(self, schema_id: int) -> str:
        """The schema of an id as its writer registered it. Raises UnknownSchemaIdError."""
        with self._lock:
            text = self._texts.get(schema_id)
        if text is None:
            try:
                schema = self._call(f"read schema {schema_id}", self._client.get_schema, schema_id)
            except _RefusedError as error:
                raise UnknownSchemaIdError(f"the registry has no schema {schema_id}: {error}") from error
            if (schema.schema_type or "AVRO") != "AVRO":
                raise UnknownSchemaIdError(f"schema {schema_id} is {schema.schema_type}, not AVRO")
            text = str(schema.schema_str)
            with self._lock:
                if len(self._texts) >= CACHE_MAX:
                    self._texts.clear()
                self._texts[schema_id] = text
        return text

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
        try:
            version = self._call(f"read {subject}", self._client.get_latest_version, subject)
        except _RefusedError:
            return None
        return int(version.schema_id), str(version.schema.schema_str)

    def belongs(self, schema_id: int, subject: str) -> bool:
        """Whether the id is one of the subject's versions: a message may not name any schema that the registry has."""
        with self._lock:
            if schema_id in self._ids.get(subject, ()):
                return True
        try:
            found = self._call(f"find the subjects of schema {schema_id}", self._subjects, schema_id)
        except _RefusedError:
            return False
        if subject not in found:
            return False
        with self._lock:
            self._ids.setdefault(subject, set()).add(schema_id)
        return True

    def subjects_of(self, schema_id: int) -> list[str]:
        """The subjects that have this id among their versions; empty if none has."""
        try:
            return sorted(self._call(f"find the subjects of schema {schema_id}", self._subjects, schema_id))
        except _RefusedError:
            return []

    def _subjects(self, schema_id: int) -> list[str]:
        return [version.subject for version in self._client.get_schema_versions(schema_id)]

    def _call(self, doing: str, function: Any, *arguments: Any) -> Any:
        deadline = time.monotonic() + self._timeout_s
        pause_s = 0.1
        while True:
            try:
                return function(*arguments)
            except SchemaRegistryError as error:
                if error.http_status_code in (401, 403):
                    raise StopError(f"could not {doing} at {self._where}: not allowed: check registry_auth") from None
                if error.http_status_code < 500 and error.http_status_code not in (408, 429):
                    raise _RefusedError(error.error_message) from None
                problem = f"HTTP {error.http_status_code}: {error.error_message}"
            except Exception as error:  # noqa: BLE001 - the client's HTTP library raises many kinds; all mean: no answer
                problem = type(error).__name__
            if time.monotonic() + pause_s > deadline:
                raise RegistryUnavailableError(
                    f"could not {doing}: no answer from the registry at {self._where} within {self._timeout_s:g} s ({problem}): "
                    "is it up? (`headrace status`)"
                ) from None
            time.sleep(pause_s * random.uniform(0.5, 1.0))
            pause_s = min(pause_s * 2, 2.0)

    @property
    def _where(self) -> str:
        parts = urlsplit(self._url)
        return f"{parts.scheme}://{parts.hostname}:{parts.port or ''}"


class _RefusedError(Exception):
    pass
