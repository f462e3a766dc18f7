"""Unpacking: one Kafka message → the records in it that belong to the stream and were not read before.

The same decisions as the Spark job's survey, by the same core: void (pipeline/model/shards.py), repeat
(pipeline/model/repeats.py). What is not a stream's record at all comes out as a reason for the dead letters.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from pipeline.config import StreamConfig
from pipeline.errors import DecodeError, SchemaError
from pipeline.kafka.group_reader import Fetched
from pipeline.kafka.registry_client import RegistryClient, UnknownSchemaIdError
from pipeline.model.keys import hash_key, salted_key
from pipeline.model.record import OrderToken, Record
from pipeline.model.repeats import Marks, Verdict, is_repeat
from pipeline.model.shards import Shard, ShardMap
from pipeline.model.stamp import END_HEADER, STAMP_HEADER, Stamp, decode_stamp
from pipeline.schema.decode import AggregateDecoder
from pipeline.schema.framing import split_frame
from pipeline.schema.value_schema import ValueSchema

DECODERS_MAX = 200


class Kind(Enum):
    RECORDS = "records"
    END = "end"
    VOID = "void"
    REPEAT = "repeat"
    BAD = "bad"


@dataclass(slots=True)
class Unpacked:
    """What a message came to. ``records`` are those to handle; ``repeats`` were left out. For BAD, ``error`` says why."""

    kind: Kind
    fetched: Fetched
    shard: Shard | None = None
    stamp: Stamp | None = None
    records: list[Record] = field(default_factory=list)
    repeats: int = 0
    error: DecodeError | SchemaError | None = None


class Unpacker:
    """Owned by one consumer. ``find_shard`` gives the map that knows a shard id, after reading on in the control log.

    Raises RegistryUnavailableError while a schema cannot be asked for: the message has to be tried again, not rejected.
    """

    def __init__(
        self,
        stream: StreamConfig,
        registry: RegistryClient,
        reader: ValueSchema | None,
        find_shard: Callable[[str], ShardMap],
    ) -> None:
        self._stream = stream
        self._registry = registry
        self._reader = reader
        self._find_shard = find_shard
        self._decoders: dict[int, AggregateDecoder] = {}

    def unpack(self, fetched: Fetched, marks: Marks) -> Unpacked:
        """Judge and decode one message. Does not change ``marks``: that is done when its records are handled."""
        stamp_bytes = _header(fetched, STAMP_HEADER)
        if stamp_bytes is None:
            if _header(fetched, END_HEADER) is not None:
                return Unpacked(Kind.END, fetched)
            return self._foreign(fetched)
        try:
            stamp = decode_stamp(stamp_bytes)
            shard = self._shard(stamp, fetched)
            if shard.is_void(fetched.offset):
                return Unpacked(Kind.VOID, fetched, shard, stamp)
            verdict, ranges = marks.judge(stamp.producer, stamp.first_seq, stamp.last_seq, shard.low, shard.high)
            if verdict is Verdict.REPEAT:
                return Unpacked(Kind.REPEAT, fetched, shard, stamp, repeats=stamp.count)
            records = self._decode(fetched, shard, stamp)
        except (DecodeError, SchemaError) as error:
            return Unpacked(Kind.BAD, fetched, error=error)
        kept = records
        if verdict is Verdict.PARTLY:
            kept = [r for r in records if not is_repeat(ranges, hash_key(salted_key(r.key, r.salt)), r.seq)]
        return Unpacked(Kind.RECORDS, fetched, shard, stamp, kept, len(records) - len(kept))

    def _shard(self, stamp: Stamp, fetched: Fetched) -> Shard:
        shard_map = self._find_shard(stamp.shard)
        shard = shard_map.shards.get(stamp.shard)
        if shard is None:
            raise DecodeError(f"stamped with shard {stamp.shard!r}, which the control log does not know")
        if shard.place != fetched.place:
            topic, partition = shard.place
            raise DecodeError(f"stamped with shard {stamp.shard!r}, which is in {topic}[{partition}], not here")
        return shard

    def _decode(self, fetched: Fetched, shard: Shard, stamp: Stamp) -> list[Record]:
        schema_id, body = split_frame(fetched.value or b"")
        decoder = self._decoder(schema_id)
        common: dict[str, Any] = {
            "shard": shard.id,
            "partition": fetched.place[1],
            "offset": fetched.offset,
            "producer": stamp.producer,
            "schema_id": schema_id,
            "topic": fetched.place[0],
        }
        if not decoder.is_envelope:
            value = decoder.decode_value(body)
            key = (fetched.key or b"").decode("utf-8", "replace")
            token = OrderToken(shard.generation, fetched.offset, 0)
            headers = [(name, content) for name, content in fetched.headers if name != STAMP_HEADER]
            return [
                Record(
                    key=key, value=value, id=None, headers=headers, produced_at_ms=fetched.timestamp_ms, index=0, order=token,
                    seq=stamp.first_seq, **common,
                )
            ]
        entries = decoder.decode(body)
        if len(entries) != stamp.count:
            raise DecodeError(f"the stamp promises {stamp.count} records, the aggregate has {len(entries)}")
        generation, offset, first_seq = shard.generation, fetched.offset, stamp.first_seq
        return [
            Record(
                key=entry.key,
                value=entry.value,
                id=entry.id,
                headers=entry.headers,
                produced_at_ms=entry.timestamp_ms,
                index=index,
                order=OrderToken(generation, offset, index),
                seq=first_seq + entry.seq,
                salt=entry.salt,
                **common,
            )
            for index, entry in enumerate(entries)
        ]

    def _foreign(self, fetched: Fetched) -> Unpacked:
        """A message without our stamp: somebody else's producer."""
        if self._stream.foreign != "accept":
            return Unpacked(
                Kind.BAD,
                fetched,
                error=DecodeError("no headrace stamp: written by a foreign producer (`foreign: accept` reads such records)"),
            )
        try:
            schema_id, body = split_frame(fetched.value or b"")
            value = self._decoder(schema_id).decode_value(body)
        except (DecodeError, SchemaError) as error:
            return Unpacked(Kind.BAD, fetched, error=error)
        place = fetched.place
        record = Record(
            key=(fetched.key or b"").decode("utf-8", "replace"),
            value=value,
            id=None,
            headers=list(fetched.headers),
            produced_at_ms=fetched.timestamp_ms,
            shard="",
            partition=place[1],
            offset=fetched.offset,
            index=0,
            order=OrderToken(0, fetched.offset, 0),
            producer="",
            seq=-1,
            schema_id=schema_id,
            topic=place[0],
        )
        return Unpacked(Kind.RECORDS, fetched, records=[record])

    def _decoder(self, schema_id: int) -> AggregateDecoder:
        decoder = self._decoders.get(schema_id)
        if decoder is None:
            try:
                text = self._registry.schema_text(schema_id)
                if not self._registry.belongs(schema_id, self._stream.subject):
                    raise DecodeError(f"schema {schema_id} is not one of {self._stream.subject}'s")
            except UnknownSchemaIdError as error:
                raise DecodeError(str(error)) from error
            if len(self._decoders) >= DECODERS_MAX:
                self._decoders.clear()
            decoder = self._decoders[schema_id] = AggregateDecoder(text, self._reader)
        return decoder


def _header(fetched: Fetched, name: str) -> bytes | None:
    return next((value or b"" for key, value in fetched.headers if key == name), None)
