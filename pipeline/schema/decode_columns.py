"""An aggregate decoded by column, where its schema allows: about twenty times fastavro's speed (pyruhvro, optional).

pyruhvro is fast on flat types only, so it is given a *lean* schema of the same bytes: logical types stripped, and the
entries' ``headers`` (an array, mostly empty) read as one int. That int is the count of the array's first block: where it is
0 the bytes mean the same under both schemas; where one is not, everything after it may be nonsense, so the aggregate goes
to fastavro, whole. The same happens after any error of pyruhvro, so that what is refused, and why, is fastavro's word alone.

pyruhvro does not say where it stopped reading. So the lean schema ends in one more long, and a random number of this
process is put behind the body: if something else is read there, bytes were left over.
"""

from __future__ import annotations

import datetime
import json
import secrets
from collections.abc import Callable
from typing import Any

import fastavro.read
import pyarrow as pa
import pyarrow.compute

from pipeline.schema.avro_types import AvroType, Enum, Primitive, Record, Union
from pipeline.schema.varint import encode_long

try:
    import pyruhvro
except ImportError:  # an option of the installation: `headrace[columns]`
    pyruhvro = None

_SENTINEL = secrets.randbelow(1 << 62)
_SENTINEL_BYTES = encode_long(_SENTINEL)
_PLAIN = frozenset({"boolean", "int", "long", "float", "double", "string"})
# What bytes outside its schema may make pyruhvro, pyarrow or the conversion of a logical type raise.
_REFUSED = (ValueError, TypeError, OverflowError, KeyError, IndexError, pa.ArrowException)


class ColumnDecoder:
    """Decodes aggregates of one value schema by column. Safe to call from many threads."""

    __slots__ = ("_lean", "_rows")

    def __init__(self, value: Record) -> None:
        self._lean = json.dumps(_lean_envelope(value))
        self._rows = _Builder().compile(value)

    def decode(self, body: bytes) -> pa.StructArray | None:
        """The entries as one array of structs; None if fastavro has to decode this body."""
        try:
            batch = pyruhvro.deserialize_array([body + _SENTINEL_BYTES], self._lean)
            if batch.column("end")[0].as_py() != _SENTINEL:
                return None
            entries: pa.StructArray = batch.column("records").flatten()
            counts = pa.compute.min_max(entries.field("headers"))
            if counts["min"].as_py() or counts["max"].as_py():
                return None
            entries.validate(full=True)  # strings that are not UTF-8
        except _REFUSED:
            return None
        return entries

    def rows(self, values: pa.StructArray) -> list[dict[str, Any] | None] | None:
        """The values as fastavro gives them; None where a number is outside its logical type."""
        try:
            rows: list[dict[str, Any] | None] = self._rows(values)
        except _REFUSED:
            return None
        return rows


def column_decoder(value: Record) -> ColumnDecoder | None:
    """The decoder of a value schema; None where pyruhvro is not installed or not fast on it."""
    return ColumnDecoder(value) if pyruhvro is not None and _flat(value) else None


def _flat(avro: AvroType) -> bool:
    if isinstance(avro, Primitive):
        return avro.name in _PLAIN and (avro.logical is None or _reader(avro) is not None)
    if isinstance(avro, Record):
        return not avro.recursive and bool(avro.fields) and all(_flat(one.type) for one in avro.fields)
    if isinstance(avro, Union):
        return len(avro.branches) == 2 and avro.null_index >= 0 and _flat(avro.branches[1 - avro.null_index])
    return isinstance(avro, Enum)


def _reader(avro: Primitive) -> Callable[..., Any] | None:
    found: Callable[..., Any] | None = None
    if avro.logical is not None:
        found = fastavro.read.LOGICAL_READERS.get(f"{avro.name}-{avro.logical.name}")
    return found


def _lean_envelope(value: Record) -> dict[str, Any]:
    entry = [
        {"name": "seq", "type": "int"},
        {"name": "key", "type": "string"},
        {"name": "id", "type": ["null", "string"]},
        {"name": "salt", "type": "int"},
        {"name": "timestamp", "type": "long"},
        {"name": "headers", "type": "int"},
        {"name": "value", "type": ["null", _lean(value, [0])]},
    ]
    records = {"type": "array", "items": {"type": "record", "name": "Entry", "fields": entry}}
    fields = [{"name": "records", "type": records}, {"name": "end", "type": "long"}]
    return {"type": "record", "name": "Lean", "fields": fields}


def _lean(avro: AvroType, counter: list[int]) -> Any:
    """The type without names of its own: a record that stands twice in a schema is simply written twice."""
    if isinstance(avro, Primitive):
        return avro.name
    if isinstance(avro, Union):
        return [_lean(branch, counter) for branch in avro.branches]
    counter[0] += 1
    name = f"N{counter[0]}"
    if isinstance(avro, Enum):
        return {"type": "enum", "name": name, "symbols": list(avro.symbols)}
    assert isinstance(avro, Record)
    fields = [{"name": one.name, "type": _lean(one.type, counter)} for one in avro.fields]
    return {"type": "record", "name": name, "fields": fields}


class _Builder:
    """Generates the function that turns a struct array into a list of dicts, one comprehension per record type. Field names
    go in by ``repr``; all else is a numbered name."""

    def __init__(self) -> None:
        self._names: dict[str, Any] = {"pick": _pick}
        self._lines: list[str] = []
        self._count = 0

    def compile(self, record: Record) -> Callable[[pa.StructArray], list[Any]]:
        function = self._record(record)
        exec(compile("\n".join(self._lines) + "\n", "<rows of a schema>", "exec"), self._names)  # noqa: S102 - see the class
        rows: Callable[[pa.StructArray], list[Any]] = self._names[function]
        return rows

    def _record(self, record: Record) -> str:
        columns = [self._column(one.type, f"column.field({index})") for index, one in enumerate(record.fields)]
        items = [f"v{index}" for index in range(len(columns))]
        row = ", ".join(f"{one.name!r}: {item}" for one, item in zip(record.fields, items, strict=True))
        self._count += 1
        name = f"rows{self._count}"
        self._lines += [
            f"def {name}(column):",
            f"    rows = [{{{row}}} for {', '.join(items)}, in zip({', '.join(columns)})]",
            "    return pick(rows, column) if column.null_count else rows",
        ]
        return name

    def _column(self, avro: AvroType, source: str) -> str:
        if isinstance(avro, Union):
            return self._column(avro.branches[1 - avro.null_index], source)
        if isinstance(avro, Record):
            return f"{self._record(avro)}({source})"
        if isinstance(avro, Primitive) and (reader := _reader(avro)) is not None:
            self._count += 1
            self._names[f"read{self._count}"] = _quick(avro, reader)
            return f"[None if x is None else read{self._count}(x) for x in {source}.to_pylist()]"
        return f"{source}.to_pylist()"


def _pick(rows: list[Any], column: pa.StructArray) -> list[Any]:
    return [row if there else None for row, there in zip(rows, column.is_valid().to_pylist(), strict=True)]


def _quick(avro: Primitive, reader: Callable[..., Any]) -> Callable[[Any], Any]:
    epoch, delta = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC), datetime.timedelta
    name = avro.logical.name if avro.logical else ""
    if name == "timestamp-micros":
        return lambda number: epoch + delta(microseconds=number)
    if name == "timestamp-millis":
        return lambda number: epoch + delta(milliseconds=number)
    return lambda raw: reader(raw, None, None)
