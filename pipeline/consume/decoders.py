"""Decoders by schema id. Of a consumer, an id that is new is asked for in a thread of its own, so that a registry that is
down or slow delays the messages of that id only; the reader goes on with those whose schemas are known.
"""

from __future__ import annotations

import threading

from pipeline.consume.parts import Schemas
from pipeline.errors import DecodeError, RegistryUnavailableError
from pipeline.kafka.registry_client import UnknownSchemaIdError
from pipeline.schema.decode import AggregateDecoder
from pipeline.schema.value_schema import ValueSchema

DECODERS_MAX = 200
# A registry that is well answers within this, and nothing is put aside.
FIRST_WAIT_S = 0.3


class Decoders:
    """Owned by one reader. ``subjects`` are those whose schemas its messages may name; ``reader`` is what values are
    resolved to (None: as they were written). Not ``patient``: does not wait for a slow registry, the asking goes on."""

    def __init__(self, registry: Schemas, subjects: tuple[str, ...], reader: ValueSchema | None, *, patient: bool = True) -> None:
        self._patient = patient
        self._registry = registry
        self._subjects = subjects
        self._reader = reader
        self._known: dict[int, AggregateDecoder] = {}
        self._asked: dict[int, _Ask] = {}
        self._given: AggregateDecoder | None = None

    def get(self, schema_id: int) -> AggregateDecoder:
        """Raises DecodeError for an id that is not the stream's, SchemaError for a schema that cannot be used, and
        RegistryUnavailableError while the registry has not answered: try again later, the asking goes on."""
        decoder = self._known.get(schema_id)
        if decoder is not None:
            return decoder
        if self._patient:
            return self._keep(schema_id, self.make(schema_id))
        ask = self._asked.get(schema_id)
        if ask is None:
            ask = self._asked[schema_id] = _Ask(self, schema_id)
            ask.done.wait(FIRST_WAIT_S)
        if not ask.done.is_set():
            raise RegistryUnavailableError(f"the registry has not answered for schema {schema_id} yet: is it up?")
        del self._asked[schema_id]
        if ask.decoder is None:
            assert ask.error is not None
            raise ask.error
        return self._keep(schema_id, ask.decoder)

    def _keep(self, schema_id: int, decoder: AggregateDecoder) -> AggregateDecoder:
        if len(self._known) >= DECODERS_MAX:
            self._known.clear()
        self._known[schema_id] = decoder
        return decoder

    def given(self) -> AggregateDecoder:
        """The decoder of messages that name no schema of ours, written with the stream's own. Raises DecodeError."""
        if self._given is None:
            if self._reader is None:
                raise DecodeError("framed by AWS Glue: the stream needs `schema:` to read it")
            self._given = AggregateDecoder(self._reader.text)
        return self._given

    def make(self, schema_id: int) -> AggregateDecoder:
        """Ask the registry, now and as long as its client waits."""
        try:
            text = self._registry.schema_text(schema_id)
            if not any(self._registry.belongs(schema_id, subject) for subject in self._subjects):
                raise DecodeError(f"schema {schema_id} is not of {' or '.join(self._subjects)}")
        except UnknownSchemaIdError as error:
            raise DecodeError(str(error)) from error
        return AggregateDecoder(text, self._reader)


class _Ask:
    """One question to the registry. A daemon: it must not keep a process from ending."""

    def __init__(self, decoders: Decoders, schema_id: int) -> None:
        self.decoder: AggregateDecoder | None = None
        self.error: Exception | None = None
        self.done = threading.Event()
        threading.Thread(target=self._run, args=(decoders, schema_id), name="headrace-schema", daemon=True).start()

    def _run(self, decoders: Decoders, schema_id: int) -> None:
        try:
            self.decoder = decoders.make(schema_id)
        except Exception as error:  # noqa: BLE001 - raised in the consumer's thread, where it can be seen
            self.error = error
        finally:
            self.done.set()
