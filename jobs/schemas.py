"""The writers' schemas of a stream by id, and the reader's schema over those met so far."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from jobs.reader_schema import reader_schema
from pipeline.config import Connection, StreamConfig
from pipeline.errors import SchemaError
from pipeline.kafka.registry_client import RegistryClient, UnknownSchemaIdError
from pipeline.schema.envelope import is_envelope, value_schema_of
from pipeline.schema.value_schema import ValueSchema, load_schema, parse_schema

REGISTRY_TIMEOUT_S = 15.0


@dataclass(frozen=True, slots=True)
class Writer:
    """A schema that messages of the stream are written with. ``text`` is as registered, ``value`` the record inside."""

    id: int
    text: str
    is_envelope: bool
    value: ValueSchema


@dataclass(frozen=True, slots=True)
class BadId:
    """A schema id whose messages are rejected: the registry answers, and it is not the stream's."""

    id: int
    reason: str
    detail: str


class StreamSchemas:
    """The stream's schemas. Not thread-safe. Raises SchemaError where the stream's own schema file does not parse."""

    def __init__(self, connection: Connection, stream: StreamConfig, registry: RegistryClient | None = None) -> None:
        self._stream = stream
        self._registry = registry or RegistryClient(connection, REGISTRY_TIMEOUT_S)
        self.own = load_schema(stream.avro_schema)
        self._writers: dict[int, Writer] = {}

    def writers(self, ids: Iterable[int]) -> tuple[list[Writer], list[BadId]]:
        """The writers of some ids, and those that are not the stream's.

        Raises RegistryUnavailableError while the registry does not answer for an id not met before: the micro-batch is
        tried again. What is bad is asked again next time: somebody may have registered it meanwhile.
        """
        good, bad = [], []
        for schema_id in sorted(ids):
            found = self._writers.get(schema_id) or self._ask(schema_id)
            if isinstance(found, BadId):
                bad.append(found)
            else:
                self._writers[schema_id] = found
                good.append(found)
        return good, bad

    def reader(self) -> dict[str, Any]:
        """The reader's value schema over every writer met by this process and the stream's own file, newest first."""
        known = [self._writers[schema_id].value for schema_id in sorted(self._writers, reverse=True)]
        return reader_schema([json.loads(value.text) for value in [*known, self.own]])

    def _ask(self, schema_id: int) -> Writer | BadId:
        try:
            text = self._registry.schema_text(schema_id)
        except UnknownSchemaIdError:
            return BadId(schema_id, "schema_id", f"the registry has no schema {schema_id}")
        subjects = (self._stream.subject, self.own.full_name)
        if not any(self._registry.belongs(schema_id, subject) for subject in subjects):
            return BadId(schema_id, "schema_id", f"schema {schema_id} is not of {' or '.join(subjects)}")
        source = f"schema {schema_id}"
        try:
            if is_envelope(text):
                return Writer(schema_id, text, True, value_schema_of(text, source))
            return Writer(schema_id, text, False, parse_schema(text, source))
        except SchemaError as error:
            return BadId(schema_id, "schema", str(error))
