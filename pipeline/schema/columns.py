"""Whole columns to encoded entries by pyruhvro (the optional extra ``columns``), where it writes what ``generate.py`` writes.

It is handed a flat schema that gives the same bytes as an entry: what is constant there (no id, salt 0, no headers, the
union's index of V) are ints here, enums are their index, dates and times their number. Anything it cannot do for certain
makes ``ColumnEncoder`` give None, and the rows go the usual way, which also words the errors.

A property test compares both over random schemas and tables.
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.schema.avro_types import AvroType, Enum, Primitive, Union
from pipeline.schema.logical import INT_RANGES
from pipeline.schema.value_schema import ValueSchema

_CONSTANTS = {"id": 0, "salt": 0, "timestamp": 0, "headers": 0, "branch": 1}
_TIMESTAMP = list(_CONSTANTS).index("timestamp")
CONSTANT_ROWS = 10_000  # made once; an aggregate has mostly no more
_ARROW = {
    "boolean": pa.bool_(),
    "int": pa.int32(),
    "long": pa.int64(),
    "float": pa.float32(),
    "double": pa.float64(),
    "string": pa.string(),
}
_PYTHON: Mapping[str, set[type]] = {
    "boolean": {bool},
    "int": {int},
    "long": {int},
    "double": {float},
    "string": {str},
}
_UNITS = {"timestamp-millis": "ms", "timestamp-micros": "us"}
# What an entry takes at most besides its strings: by type, and around the value.
_BYTES_MAX = {"boolean": 1, "int": 5, "long": 10, "float": 4, "double": 8, "string": 5}
FRONT_BYTES_MAX = 25


@dataclass(frozen=True, slots=True)
class Entries:
    """Encoded entries, sequence included, one behind the other in ``body``; entry i ends at ``ends[i]``."""

    body: memoryview
    ends: memoryview


@dataclass(frozen=True, slots=True)
class _Column:
    """A field: what Arrow holds of it, and what pyruhvro is told of it."""

    name: str
    avro: Primitive | Enum
    plain: str  # the primitive that is written
    null_index: int  # -1: may not be null

    @property
    def bytes_max(self) -> int:
        return _BYTES_MAX[self.plain] + 1


class ColumnEncoder:
    """For one schema; ``usable`` is False where pyruhvro is missing or the schema has other types than flat ones."""

    def __init__(self, schema: ValueSchema) -> None:
        columns = [_column(one.name, one.type) for one in schema.type.fields]
        self.usable = bool(columns) and all(columns) and importlib.util.find_spec("pyruhvro") is not None
        self._columns = [column for column in columns if column is not None]
        self._names = [column.name for column in self._columns]
        if self.usable:
            import pyruhvro

            fields: list[dict[str, Any]] = [{"name": "seq", "type": "int"}, {"name": "key", "type": "string"}]
            fields += [{"name": name, "type": "long" if name == "timestamp" else "int"} for name in _CONSTANTS]
            fields += [{"name": f"v{index}", "type": _written(column)} for index, column in enumerate(self._columns)]
            self._text = json.dumps({"type": "record", "name": "Entry", "fields": fields})
            self._schema: pa.Schema = pyruhvro.avro_to_arrow_schema(self._text)
            self._serialize: Any = pyruhvro.serialize_record_batch
            self._constants = [
                pa.repeat(pa.scalar(value, self._schema.field(name).type), CONSTANT_ROWS)
                for name, value in _CONSTANTS.items()
            ]

    def bytes_max(self, columns: Sequence[pa.Array], keys: pa.Array) -> int:
        """An upper bound of what the entries of these columns take."""
        strings = sum(_string_bytes(array) for array in (*columns, keys))
        return strings + len(keys) * (FRONT_BYTES_MAX + sum(column.bytes_max for column in self._columns))

    def of_table(self, batch: pa.RecordBatch) -> list[pa.Array] | None:
        """The columns as they are written, or None where one does not fit for certain."""
        if sorted(batch.schema.names) != sorted(self._names):
            return None
        try:
            arrays = [_arrow_values(column, batch.column(column.name)) for column in self._columns]
        except pa.ArrowException:
            return None
        return _all(arrays)

    def of_rows(self, rows: Sequence[Mapping[str, Any]]) -> list[pa.Array] | None:
        """The same of dicts of exactly the schema's fields, each value of the exact type that its field mostly holds."""
        if set(map(type, rows)) != {dict} or set(map(len, rows)) != {len(self._names)}:
            return None
        try:
            arrays = [_python_values(column, list(map(itemgetter(column.name), rows))) for column in self._columns]
        except (pa.ArrowException, KeyError, OverflowError, UnicodeEncodeError):
            return None
        return _all(arrays)

    def encode(self, columns: Sequence[pa.Array], keys: pa.Array, relative_seqs: pa.Array, timestamp_ms: int) -> Entries:
        """Entries of these columns, in their order."""
        rows = len(keys)
        constants = [self._constant(index, rows) for index in range(len(_CONSTANTS))]
        constants[_TIMESTAMP] = pa.repeat(pa.scalar(timestamp_ms, pa.int64()), rows)
        batch = pa.RecordBatch.from_arrays([relative_seqs, keys, *constants, *columns], schema=self._schema)
        encoded = self._serialize(batch, self._text, 1)[0]
        _, ends, body = encoded.buffers()
        return Entries(memoryview(body), memoryview(ends).cast("i")[encoded.offset + 1 : encoded.offset + rows + 1])

    def _constant(self, index: int, rows: int) -> pa.Array:
        made = self._constants[index]
        return made.slice(0, rows) if rows <= CONSTANT_ROWS else pa.repeat(made[0], rows)


def _all(arrays: list[pa.Array | None]) -> list[pa.Array] | None:
    return None if any(array is None for array in arrays) else arrays


def _column(name: str, avro: AvroType) -> _Column | None:
    null_index = -1
    if isinstance(avro, Union):
        null_index = avro.null_index
        if len(avro.branches) != 2 or null_index < 0:
            return None
        avro = avro.branches[1 - null_index]
    if isinstance(avro, Enum):
        return _Column(name, avro, "int", null_index)
    if not isinstance(avro, Primitive) or avro.name not in _ARROW:
        return None
    if avro.logical is not None and avro.logical.name not in ("date", *_UNITS):
        return None
    return _Column(name, avro, avro.name, null_index)


def _written(column: _Column) -> Any:
    if column.null_index < 0:
        return column.plain
    return ["null", column.plain] if column.null_index == 0 else [column.plain, "null"]


def _arrow_values(column: _Column, array: pa.Array) -> pa.Array | None:
    """None where the rows' own way might write something else, or refuse."""
    kind = array.type
    if isinstance(array, pa.DictionaryArray):
        array, kind = array.cast(kind.value_type), kind.value_type
    if array.null_count and column.null_index < 0:
        return None
    if pa.types.is_null(kind):
        return array.cast(_ARROW[column.plain])
    if isinstance(column.avro, Enum):
        return _symbols(column.avro, array) if _is_text(kind) else None
    if column.avro.logical is not None:
        return _numbers(column, array)
    fits = {
        "boolean": pa.types.is_boolean,
        "int": pa.types.is_integer,
        "long": pa.types.is_integer,
        "float": pa.types.is_float32,
        "double": pa.types.is_floating,
        "string": _is_text,
    }[column.plain]
    return array.cast(_ARROW[column.plain]) if fits(kind) else None


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def _symbols(avro: Enum, array: pa.Array) -> pa.Array | None:
    found = pc.index_in(array.cast(pa.string()), pa.array(avro.symbols, pa.string()))
    return found if found.null_count == array.null_count else None


def _numbers(column: _Column, array: pa.Array) -> pa.Array | None:
    """Dates and times as the numbers that Avro writes. A time without a zone is not certain: the rows' way decides."""
    logical, kind = column.avro.logical.name, array.type  # type: ignore[union-attr]
    if logical == "date" and pa.types.is_date32(kind):
        numbers = array.cast(pa.int32())
    elif logical in _UNITS and pa.types.is_timestamp(kind) and kind.tz is not None:
        numbers = array.cast(pa.timestamp(_UNITS[logical], kind.tz)).cast(pa.int64())
    else:
        return None
    low, high = INT_RANGES[logical]
    found = pc.min_max(numbers)
    least, most = found["min"].as_py(), found["max"].as_py()
    return numbers if least is None or (low <= least and most <= high) else None


def _python_values(column: _Column, values: list[Any]) -> pa.Array | None:
    if isinstance(column.avro, Enum) or column.avro.logical is not None or column.plain not in _PYTHON:
        return None
    expected = _PYTHON[column.plain]
    found = set(map(type, values))
    if found != expected and (column.null_index < 0 or not found <= expected | {type(None)}):
        return None
    return pa.array(values, _ARROW[column.plain])


def _string_bytes(array: pa.Array) -> int:
    return array.nbytes if pa.types.is_string(array.type) else 0
