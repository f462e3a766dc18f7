"""From a dead letter back to the records that can be put again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.config import Connection, StreamConfig
from pipeline.consume.assignment import shard_at
from pipeline.consume.redriven import first_life
from pipeline.deadletter.log import Kept
from pipeline.errors import DecodeError, SchemaError
from pipeline.kafka.registry_client import RegistryClient
from pipeline.model.record import FirstLife, OrderToken
from pipeline.model.shards import ShardMap
from pipeline.model.stamp import REDRIVE_HEADER, STAMP_HEADER, decode_stamp
from pipeline.schema.decode import AggregateDecoder
from pipeline.schema.framing import split_frame
from pipeline.schema.value_schema import load_schema


@dataclass(frozen=True, slots=True)
class Revived:
    """A record of a dead letter, decoded with the stream's schema of today."""

    key: str
    value: Any
    id: str | None
    headers: list[tuple[str, bytes | None]]
    life: FirstLife


class Reviver:
    """Decodes dead letters of one stream."""

    def __init__(self, connection: Connection, stream: StreamConfig, shard_map: ShardMap) -> None:
        self._registry = RegistryClient(connection)
        self._stream = stream
        self._reader = load_schema(stream.avro_schema)
        self._map = shard_map
        self._decoders: dict[int, AggregateDecoder] = {}

    def records(self, kept: Kept) -> Sequence[Revived]:
        """The records of a letter: one, or all of a message that could not be decoded then and can be now. Raises DecodeError
        or SchemaError where it still cannot."""
        letter = kept.letter
        schema_id, body = split_frame(kept.raw or b"")
        decoder = self._decoder(schema_id)
        first_seq, producer = self._identity(kept)
        if not decoder.is_envelope:
            headers = [(name, value) for name, value in kept.headers if name not in _OURS]
            key = (kept.key or b"").decode("utf-8", "replace")
            life = FirstLife(self._order(kept, max(letter.index, 0)), producer, first_seq, _place(kept, kept.headers))
            return [Revived(key, decoder.decode_value(body), letter.id, headers, life)]
        revived = []
        for index, entry in enumerate(decoder.decode(body)):
            headers = [header for header in entry.headers if header[0] != REDRIVE_HEADER]
            seq = letter.seq if letter.index >= 0 else first_seq + entry.seq if producer else -1
            life = FirstLife(self._order(kept, index), producer, seq, _place(kept, entry.headers))
            revived.append(Revived(entry.key, entry.value, entry.id, headers, life))
        return revived

    def _identity(self, kept: Kept) -> tuple[int, str]:
        if kept.letter.index >= 0:
            return kept.letter.seq, kept.letter.producer
        stamp = next((value for name, value in kept.headers if name == STAMP_HEADER), None)
        if stamp is None:
            return -1, ""
        told = decode_stamp(stamp)
        return told.first_seq, told.producer

    def _order(self, kept: Kept, index: int) -> OrderToken:
        letter = kept.letter
        if letter.order is not None:
            return OrderToken(*letter.order)
        shard = shard_at(self._map, (letter.topic, letter.partition), letter.offset)
        return OrderToken(shard.generation if shard else 0, letter.offset, index)

    def _decoder(self, schema_id: int) -> AggregateDecoder:
        if schema_id not in self._decoders:
            if not self._registry.belongs(schema_id, self._stream.subject):
                raise DecodeError(f"schema {schema_id} is not one of {self._stream.subject}'s")
            self._decoders[schema_id] = AggregateDecoder(self._registry.schema_text(schema_id), self._reader)
        return self._decoders[schema_id]


def _place(kept: Kept, headers: Sequence[tuple[str, bytes | None]]) -> tuple[str, int]:
    """Where the record came first: of one that was redriven before, its old header tells."""
    before = next((first_life(content) for name, content in headers if name == REDRIVE_HEADER), None)
    if before is not None and before.place is not None:
        return before.place
    return kept.letter.topic, kept.letter.partition


_OURS = (STAMP_HEADER, REDRIVE_HEADER)
CannotRevive = (DecodeError, SchemaError)
