"""Records as Arrow batches: the value's columns, then ``_meta`` as in bronze tables.

Where the aggregate came by column (pipeline/schema/decode_columns.py), no Python object is made per record.
"""

from __future__ import annotations

import uuid
from typing import Any

import pyarrow as pa
import pyarrow.compute

from pipeline.consume.unpack import Unpacked
from pipeline.errors import DecodeError, SchemaError
from pipeline.model.record import Record
from pipeline.schema.arrow_types import arrow_type
from pipeline.schema.value_schema import ValueSchema

ALIKE_MAX = 64  # arrays of one value that are kept: some for each shard
MILLIS = pa.timestamp("ms", "UTC")
ORDER = pa.struct([("generation", pa.int64()), ("offset", pa.int64()), ("index", pa.int32())])
META = pa.struct(
    [
        ("key", pa.string()),
        ("salt", pa.int32()),
        ("shard", pa.string()),
        ("order", ORDER),
        ("partition", pa.int32()),
        ("producer", pa.string()),
        ("seq", pa.int64()),
        ("id", pa.string()),
        ("schema_id", pa.int32()),
        ("timestamp", MILLIS),
        ("traceparent", pa.string()),
    ]
)


class ArrowRows:
    """Makes the batches of one stream."""

    def __init__(self, schema: ValueSchema | None) -> None:
        self._value = schema
        self._type: pa.StructType | None = None
        self._indices = pa.array((), pa.int32())
        self._alike: dict[tuple[Any, pa.DataType], pa.Array] = {}

    def check(self) -> None:
        """Raises SchemaError where the stream's values have no columns."""
        if self._value is None:
            raise SchemaError("arrow() needs a schema, and this stream has none: read records instead")
        self._type = arrow_type(self._value.type)

    def batch(self, unpacked: Unpacked) -> pa.RecordBatch:
        """The records of a message that are to be handled."""
        columns, kind = unpacked.columns, self._type
        assert columns is not None
        assert kind is not None
        if columns.arrow is not None:
            values = self._typed(columns.arrow.field("value"), kind)
        else:
            try:
                values = pa.array([_plain(value) for value in columns.values], kind)
            except (pa.ArrowException, TypeError, ValueError, OverflowError) as error:
                raise DecodeError(f"values that do not fit their Arrow columns ({type(error).__name__})") from None
        arrays = [*values.flatten(), self._meta(unpacked)]  # flatten: a tombstone's columns are null
        batch = pa.RecordBatch.from_arrays(arrays, [*(field.name for field in kind), "_meta"])
        kept = unpacked.kept
        if len(kept) == len(columns):
            return batch
        if kept and kept[-1] - kept[0] + 1 == len(kept):
            return batch.slice(kept[0], len(kept))
        return batch.take(pa.array(kept, pa.int32()))

    def _up_to(self, count: int) -> pa.Array:
        """0 … count - 1; the longest is kept."""
        if len(self._indices) < count:
            self._indices = pa.array(range(count), pa.int32())
        return self._indices.slice(0, count)

    def _same(self, value: Any, kind: pa.DataType, count: int) -> pa.Array:
        """``count`` times a value that most messages of a shard share: the longest is kept."""
        kept = self._alike.get((value, kind))
        if kept is None or len(kept) < count:
            if len(self._alike) >= ALIKE_MAX:
                self._alike.clear()
            kept = self._alike[value, kind] = pa.repeat(pa.scalar(value, kind), count)
        return kept.slice(0, count)

    def _typed(self, values: pa.StructArray, kind: pa.StructType) -> pa.StructArray:
        """The columns of the lean schema with their logical types."""
        return values if values.type == kind else values.cast(kind)

    def _meta(self, unpacked: Unpacked) -> pa.StructArray:
        origin, columns = unpacked.origin, unpacked.columns
        assert origin is not None
        assert columns is not None
        count = len(columns)

        def same(value: Any, kind: pa.DataType) -> pa.Array:
            return self._same(value, kind, count)

        offsets = pa.repeat(pa.scalar(origin.offset, pa.int64()), count)
        order = pa.StructArray.from_arrays([same(origin.generation, pa.int64()), offsets, self._up_to(count)], fields=list(ORDER))
        producers = same(origin.producer, pa.string())
        if origin.first_lives:
            records = [Record(origin, index, "", None) for index in range(count)]
            tokens = [record.order for record in records]
            order = pa.array([(token.generation, token.offset, token.index) for token in tokens], ORDER)
            producers = pa.array([record.producer for record in records], pa.string())
        if columns.arrow is not None:
            entry = columns.arrow
            keys, salts, ids = entry.field("key"), entry.field("salt"), entry.field("id")
            seqs, times = entry.field("seq"), entry.field("timestamp").view(MILLIS)
        else:
            keys, ids = pa.array(columns.keys, pa.string()), pa.array(columns.ids, pa.string())
            salts = pa.array(columns.salts, pa.int32())
            seqs, times = pa.array(columns.seqs, pa.int64()), pa.array(columns.times_ms, pa.int64()).cast(MILLIS)
        seqs = pa.compute.add(seqs, pa.scalar(origin.first_seq, pa.int64()))
        if origin.first_lives:
            seqs = pa.array([record.seq for record in records], pa.int64())
        traces = same(None, pa.string())
        if origin.headers is not None:
            traces = pa.array([Record(origin, index, "", None).traceparent for index in range(count)], pa.string())
        arrays = [
            keys, salts, same(origin.shard, pa.string()), order, same(origin.partition, pa.int32()),
            producers, seqs, ids, same(origin.schema_id, pa.int32()), times, traces,
        ]  # fmt: skip
        return pa.StructArray.from_arrays(arrays, fields=list(META))


def _plain(value: Any) -> Any:
    """UUIDs as text, also inside; the rest as it is."""
    if isinstance(value, dict):
        return {name: _plain(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_plain(inner) for inner in value]
    return str(value) if isinstance(value, uuid.UUID) else value
