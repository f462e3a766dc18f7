"""The Arrow type of an Avro type: what ``Consumer.arrow`` gives, and what plain values are turned into."""

from __future__ import annotations

import pyarrow as pa

from pipeline.errors import SchemaError
from pipeline.schema.avro_types import Array, AvroType, Enum, Fixed, Map, Primitive, Union

_PRIMITIVES = {
    "null": pa.null(),
    "boolean": pa.bool_(),
    "int": pa.int32(),
    "long": pa.int64(),
    "float": pa.float32(),
    "double": pa.float64(),
    "bytes": pa.binary(),
    "string": pa.string(),
}
_LOGICAL = {
    "date": pa.date32(),
    "time-millis": pa.time32("ms"),
    "time-micros": pa.time64("us"),
    "timestamp-millis": pa.timestamp("ms", "UTC"),
    "timestamp-micros": pa.timestamp("us", "UTC"),
    "local-timestamp-millis": pa.timestamp("ms"),
    "local-timestamp-micros": pa.timestamp("us"),
}


def arrow_type(avro: AvroType, path: str = "") -> pa.DataType:
    """Raises SchemaError, naming the field, for what no column can hold: recursive records, unions of several types."""
    if isinstance(avro, Primitive | Fixed):
        logical = avro.logical
        if logical is not None and logical.name == "decimal":
            return pa.decimal256(logical.precision, logical.scale) if logical.precision > 38 else pa.decimal128(
                logical.precision, logical.scale
            )
        if isinstance(avro, Fixed):
            return pa.binary(avro.size_bytes)
        return _LOGICAL.get(logical.name, _PRIMITIVES[avro.name]) if logical is not None else _PRIMITIVES[avro.name]
    if isinstance(avro, Enum):
        return pa.string()
    if isinstance(avro, Array):
        return pa.list_(arrow_type(avro.items, f"{path}[]"))
    if isinstance(avro, Map):
        return pa.map_(pa.string(), arrow_type(avro.values, f"{path}{{}}"))
    if isinstance(avro, Union):
        others = [branch for branch in avro.branches if not (isinstance(branch, Primitive) and branch.name == "null")]
        if len(others) != 1:
            raise SchemaError(f"field {path!r} is a union of several types, which no Arrow column holds: read records instead")
        return arrow_type(others[0], path)
    if avro.recursive:
        raise SchemaError(f"field {path or avro.name!r} is a recursive record, which no Arrow column holds: read records instead")
    return pa.struct([pa.field(one.name, arrow_type(one.type, f"{path}.{one.name}".lstrip("."))) for one in avro.fields])


