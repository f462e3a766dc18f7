"""Unpacking: one Kafka message → the records in it that belong to the stream and were not read before.

The same decisions as the Spark job's survey, by the same core: void (pipeline/model/shards.py), repeat
(pipeline/model/repeats.py). What is not a stream's record at all comes out as a reason for the dead letters.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from enum import Enum
from itertools import repeat
from typing import TYPE_CHECKING, Any

from pipeline.config import StreamConfig
from pipeline.consume.decoders import Decoders
from pipeline.consume.foreign import NO_SCHEMA, foreign_record
from pipeline.consume.parts import Schemas
from pipeline.consume.redriven import first_lives
from pipeline.errors import DecodeError, SchemaError
from pipeline.kafka.group_reader import Fetched
from pipeline.model.keys import record_hash
from pipeline.model.record import Origin, Record
from pipeline.model.repeats import Marks, Verdict, is_repeat
from pipeline.model.shards import Shard, ShardMap
from pipeline.model.stamp import CLAIM_HEADER, END_HEADER, STAMP_HEADER, Stamp, decode_stamp
from pipeline.schema.decode import AggregateDecoder, Columns
from pipeline.schema.framing import split_frame
from pipeline.schema.value_schema import ValueSchema

if TYPE_CHECKING:
    from pipeline.claims.store import ClaimStore


class Kind(Enum):
    RECORDS = "records"
    END = "end"
    VOID = "void"
    REPEAT = "repeat"
    BAD = "bad"


@dataclass(slots=True)
class Unpacked:
    """What a message came to. ``kept`` are the indices of the records to handle; ``repeats`` were left out. For BAD,
    ``error`` says why. ``duplicates`` counts those left out by their explicit dedup ids."""

    kind: Kind
    fetched: Fetched
    shard: Shard | None = None
    stamp: Stamp | None = None
    origin: Origin | None = None
    columns: Columns | None = None
    kept: Sequence[int] = ()
    repeats: int = 0
    duplicates: int = 0
    error: DecodeError | SchemaError | None = None
    _records: list[Record] | None = field(default=None, repr=False)

    @property
    def records(self) -> list[Record]:
        """The records to handle."""
        if self._records is None:
            columns, origin, kept = self.columns, self.origin, self.kept
            if columns is None or origin is None:
                self._records = []
            elif len(kept) == len(columns):
                self._records = list(map(Record, repeat(origin), kept, columns.keys, columns.values))
            else:
                keys, values = columns.keys, columns.values
                self._records = [Record(origin, index, keys[index], values[index]) for index in kept]
        return self._records

    def skip_below(self, index: int) -> None:
        """Records before ``index`` were handled by an earlier reader."""
        self.kept = [one for one in self.kept if one >= index]
        self._records = None


    def leave_out(self, records: Collection[Record]) -> None:
        """Records that are dealt with already: they are not to be handled."""
        out = {record.index for record in records}
        self._records = [record for record in self.records if record.index not in out]
        self.kept = [one for one in self.kept if one not in out]


def hash_of(columns: Columns, index: int) -> int:
    """The hash key that a record of an aggregate was routed by."""
    headers = None if columns.headers is None else columns.headers[index]
    return record_hash(columns.keys[index], columns.salts[index], headers)


class Unpacker:
    """Owned by one reader. ``find_shard`` gives the map that knows a shard id, after reading on in the control log. Not
    ``patient``: raises at once where the registry is slow, too.

    Raises RegistryUnavailableError while a schema cannot be asked for, ClaimStoreError while a claimed record cannot: the
    message has to be tried again, not rejected.
    """

    def __init__(
        self,
        stream: StreamConfig,
        registry: Schemas,
        reader: ValueSchema | None,
        find_shard: Callable[[str], ShardMap],
        *,
        patient: bool = True,
    ) -> None:
        self._stream = stream
        self._find_shard = find_shard
        self._claims: ClaimStore | None = None
        # Aggregates are registered under the stream's subject, plain records also under the record's own name.
        subjects = (stream.subject,) if reader is None else (stream.subject, reader.full_name)
        self._decoders = Decoders(registry, subjects, reader, patient=patient)
        self.with_values = True  # False: values may stay in Arrow's columns

    def unpack(self, fetched: Fetched, marks: Marks) -> Unpacked:
        """Judge and decode one message. Does not change ``marks``: that is done when its records are taken."""
        stamp_bytes = fetched.header(STAMP_HEADER)
        if stamp_bytes is None:
            if fetched.header(END_HEADER) is not None and self._stream.format == "headrace":
                return Unpacked(Kind.END, fetched)
            return self._foreign(fetched)
        try:
            fetched = self._claimed(fetched)
            stamp = decode_stamp(stamp_bytes)
            shard = self._shard(stamp, fetched)
            if shard.is_void(fetched.offset):
                return Unpacked(Kind.VOID, fetched, shard, stamp)
            verdict, ranges = marks.judge(stamp.producer, stamp.first_seq, stamp.last_seq, shard.low, shard.high)
            if verdict is Verdict.REPEAT:
                return Unpacked(Kind.REPEAT, fetched, shard, stamp, repeats=stamp.count)
            columns, origin = self._decode(fetched, shard, stamp)
        except (DecodeError, SchemaError) as error:
            return Unpacked(Kind.BAD, fetched, error=error)
        kept: Sequence[int] = range(len(columns))
        if verdict is Verdict.PARTLY:
            first = stamp.first_seq
            kept = [i for i, seq in enumerate(columns.seqs) if not is_repeat(ranges, hash_of(columns, i), first + seq)]
        return Unpacked(Kind.RECORDS, fetched, shard, stamp, origin, columns, kept, len(columns) - len(kept))

    def _claimed(self, fetched: Fetched) -> Fetched:
        """A record that lies in a claim store, as if it had come in its message."""
        if fetched.header(CLAIM_HEADER) is None:
            return fetched
        from pipeline.claims.store import ClaimStore, resolved  # here, since fsspec is an optional extra

        if self._claims is None and self._stream.claims is not None:
            self._claims = ClaimStore(self._stream.claims)
        return resolved(fetched, self._claims)

    def _shard(self, stamp: Stamp, fetched: Fetched) -> Shard:
        shard_map = self._find_shard(stamp.shard)
        shard = shard_map.shards.get(stamp.shard)
        if shard is None:
            raise DecodeError(f"stamped with shard {stamp.shard!r}, which the control log does not know")
        if shard.place != fetched.place:
            topic, partition = shard.place
            raise DecodeError(f"stamped with shard {stamp.shard!r}, which is in {topic}[{partition}], not here")
        return shard

    def _decode(self, fetched: Fetched, shard: Shard, stamp: Stamp) -> tuple[Columns, Origin]:
        if fetched.value is None:
            schema_id, columns = NO_SCHEMA, plain_columns(fetched, None)
        else:
            schema_id, body = split_frame(fetched.value)
            decoder = self.decoder(schema_id)
            if decoder.is_envelope:
                columns = decoder.decode_columns(body, with_values=self.with_values)
            else:
                columns = plain_columns(fetched, decoder.decode_value(body))
        if len(columns) != stamp.count:
            raise DecodeError(f"the stamp promises {stamp.count} records, the message has {len(columns)}")
        topic, partition = fetched.place
        # Without values no records are made: Arrow's columns are all that is used.
        made = columns if self.with_values or columns.arrow is None else Columns.of_entries([])
        origin = Origin(
            topic, partition, fetched.offset, shard.id, shard.generation, stamp.producer, schema_id, stamp.first_seq,
            made.seqs, made.ids, made.salts, made.times_ms, columns.headers,
            first_lives(stamp.producer, columns.headers),
        )  # fmt: skip
        return columns, origin

    def _foreign(self, fetched: Fetched) -> Unpacked:
        """A message without our stamp: somebody else's producer."""
        if self._stream.format == "headrace" and self._stream.foreign != "accept":
            return Unpacked(
                Kind.BAD,
                fetched,
                error=DecodeError("no headrace stamp: written by a foreign producer (`foreign: accept` reads such records)"),
            )
        try:
            schema_id, value = foreign_record(self._stream.format, fetched, self._decoders)
        except (DecodeError, SchemaError) as error:
            return Unpacked(Kind.BAD, fetched, error=error)
        columns = plain_columns(fetched, value)
        topic, partition = fetched.place
        origin = Origin(
            topic, partition, fetched.offset, "", 0, "", schema_id, -1,
            columns.seqs, columns.ids, columns.salts, columns.times_ms, columns.headers,
        )  # fmt: skip
        return Unpacked(Kind.RECORDS, fetched, origin=origin, columns=columns, kept=(0,))

    def decoder(self, schema_id: int) -> AggregateDecoder:
        """The decoder of a schema id. Raises DecodeError where the id is not one of the stream's."""
        return self._decoders.get(schema_id)


def plain_columns(fetched: Fetched, value: Any) -> Columns:
    """A message that carries one record: its key is the message's, its headers are the message's without our stamp."""
    headers = [(name, content) for name, content in fetched.headers if name != STAMP_HEADER]
    key = (fetched.key or b"").decode("utf-8", "replace")
    lists: dict[str, list[Any]] = {"seq": [0], "key": [key], "id": [None], "salt": [0], "timestamp": [fetched.timestamp_ms]}
    return Columns([value], [headers], None, lists)
