"""The writers' schemas of a stream by id, and the reader's schema over all versions that the registry has of it."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

from jobs.reader_schema import Reader, reader_schema
from jobs.survey import GLUE_ID
from pipeline.config import Connection, StreamConfig
from pipeline.errors import SchemaError
from pipeline.kafka.registry_client import RegistryClient, UnknownSchemaIdError
from pipeline.schema.avro_tree import parse_tree
from pipeline.schema.canonical import canonical_text
from pipeline.schema.envelope import is_envelope, value_schema_of
from pipeline.schema.value_schema import ValueSchema, load_schema, parse_schema

REGISTRY_TIMEOUT_S = 15.0
Fits = Callable[[dict[str, Any]], str | None]
log = logging.getLogger("headrace.jobs")


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


@dataclass(frozen=True, slots=True)
class Decided:
    """How to decode a micro-batch: the writers met in it, the ids whose messages are rejected, and the reader's schema."""

    writers: list[Writer]
    bad: list[BadId]
    reader: dict[str, Any]


class StreamSchemas:
    """The stream's schemas. Not thread-safe. Raises SchemaError where the stream's own schema file does not parse."""

    def __init__(self, connection: Connection, stream: StreamConfig, registry: RegistryClient | None = None) -> None:
        self._stream = stream
        self._registry = registry or RegistryClient(connection, REGISTRY_TIMEOUT_S)
        self.own = load_schema(stream.avro_schema)
        self._subjects = (stream.subject, self.own.full_name)
        # In the order in which they count: the subject's versions by id, then others that messages named: of the record's
        # own name, or no longer listed.
        self._listed: dict[int, Writer] = {}
        self._others: dict[int, Writer] = {}
        self._decided: tuple[tuple[int, ...], tuple[Reader, dict[int, str]]] = ((), (Reader({}, {}), {}))
        self._warned: set[str] = set()

    def load(self) -> None:
        """Take every version that the registry has. Raises RegistryUnavailableError while it does not answer."""
        # Not those under the record's own name: other streams of the same record register theirs there too.
        versions = {one.id: one.text for one in self._registry.versions(self._stream.subject)}
        for schema_id in sorted(versions):
            if schema_id not in self._listed:
                found = self._read(schema_id, versions[schema_id])
                if isinstance(found, Writer):
                    self._listed[schema_id] = found
        self._listed = dict(sorted(self._listed.items()))

    def decide(self, ids: Collection[int], fits: Fits = lambda _: None) -> Decided:
        """What to do with the ids of a micro-batch; ``fits`` may say why the table cannot take a reader's schema.

        Raises RegistryUnavailableError while the registry does not answer for an id not met before: the micro-batch is
        tried again. What is bad is asked again next time: somebody may have registered it meanwhile.
        """
        asked = sorted(set(ids) - {GLUE_ID})
        if any(schema_id not in self._listed and schema_id not in self._others for schema_id in asked):
            self.load()
        bad: dict[int, BadId] = {}
        for schema_id in asked:
            if schema_id not in self._listed and schema_id not in self._others:
                found = self._ask(schema_id)
                if isinstance(found, BadId):
                    bad[schema_id] = found
                else:
                    self._others[schema_id] = found
        known_ids = (*self._listed, -1, *self._others)
        if known_ids != self._decided[0]:  # the table changes only as this reader asks
            self._decided = (known_ids, self.reader(fits))
        reader, refused = self._decided[1]
        for schema_id in set(asked) & refused.keys():
            bad[schema_id] = BadId(schema_id, "schema", refused[schema_id])
        known = self._listed | self._others
        writers = [known[schema_id] for schema_id in asked if schema_id not in bad]
        if GLUE_ID in ids:
            writers.append(Writer(GLUE_ID, self.own.text, False, self.own))
        return Decided(writers, [bad[schema_id] for schema_id in sorted(bad)], reader.tree)

    def reader(self, fits: Fits = lambda _: None) -> tuple[Reader, dict[int, str]]:
        """The reader's schema over every version known and the stream's own file, and the ids that it cannot read."""
        writers = [*self._listed.values(), *self._others.values()]
        values = [writer.value for writer in writers]
        texts = {_canonical(value) for value in values}
        own = [] if _canonical(self.own) in texts else [self.own]
        reader = reader_schema([json.loads(value.text) for value in [*values, *own]], fits)
        for number, why in reader.refused.items():
            which = f"schema {writers[number].id}" if number < len(writers) else str(self._stream.schema_path)
            self._warn(f"records of {which} go to the dead letters of stream {self._stream.name}: {why}")
        return reader, {writers[n].id: why for n, why in reader.refused.items() if n < len(writers)}

    def _ask(self, schema_id: int) -> Writer | BadId:
        try:
            text = self._registry.schema_text(schema_id)
        except UnknownSchemaIdError:
            return BadId(schema_id, "schema_id", f"the registry has no schema {schema_id}")
        if not self._registry.belongs(schema_id, *self._subjects):
            return BadId(schema_id, "schema_id", f"schema {schema_id} is not of {' or '.join(self._subjects)}")
        return self._read(schema_id, text)

    def _read(self, schema_id: int, text: str) -> Writer | BadId:
        source = f"schema {schema_id}"
        try:
            if is_envelope(text):
                return Writer(schema_id, text, True, value_schema_of(text, source))
            return Writer(schema_id, text, False, parse_schema(text, source))
        except SchemaError as error:
            return BadId(schema_id, "schema", str(error))

    def _warn(self, text: str) -> None:
        if text not in self._warned:
            self._warned.add(text)
            log.error("%s", text)


def _canonical(value: ValueSchema) -> str:
    return canonical_text(parse_tree(value.text, strict=False))
