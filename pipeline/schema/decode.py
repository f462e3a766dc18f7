"""From the body of a message to records: fastavro, behind the checks that make it safe on hostile bytes."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass
from typing import Any, Literal

import fastavro
import pyarrow as pa

from pipeline.errors import DecodeError, InvariantError
from pipeline.schema.avro_types import Record
from pipeline.schema.bounded_decimal import with_bounded_decimals
from pipeline.schema.bounded_recursion import unrolled
from pipeline.schema.decode_columns import ColumnDecoder, column_decoder
from pipeline.schema.envelope import envelope_tree, is_envelope, value_schema_of
from pipeline.schema.type_parser import SCHEMA_DEPTH_MAX, parse_type
from pipeline.schema.validate import Limits, Validate, compile_validator, has_items_without_bytes, is_recursive
from pipeline.schema.value_schema import ValueSchema, fastavro_form, json_tree

# The envelope around V is six types deep.
_ENVELOPE_DEPTH = 6


@dataclass(slots=True)
class Entry:
    """One record of an aggregate. ``seq`` counts from the stamp's first_seq; ``value`` None is a tombstone.

    ``timestamp_ms`` is milliseconds since 1970 UTC. Not frozen only for speed: do not change it.
    """

    seq: int
    key: str
    id: str | None
    salt: int
    timestamp_ms: int
    headers: list[tuple[str, bytes | None]]
    value: dict[str, Any] | None


class Columns:
    """The records of an aggregate, a list for each of Entry's fields; ``headers`` is None where no record has any.

    ``arrow`` holds the same as structs where pyruhvro decoded them (values without logical types), else None. The lists are
    made when first asked for. Not thread-safe.
    """

    __slots__ = ("_lists", "arrow", "headers", "values")

    def __init__(
        self,
        values: list[dict[str, Any] | None],
        headers: list[list[tuple[str, bytes | None]]] | None,
        arrow: pa.StructArray | None,
        lists: dict[str, list[Any]],
    ) -> None:
        self.values = values
        self.headers = headers
        self.arrow = arrow
        self._lists = lists

    @classmethod
    def of_entries(cls, entries: list[Entry]) -> Columns:
        lists: dict[str, list[Any]] = {
            "seq": [entry.seq for entry in entries],
            "key": [entry.key for entry in entries],
            "id": [entry.id for entry in entries],
            "salt": [entry.salt for entry in entries],
            "timestamp": [entry.timestamp_ms for entry in entries],
        }
        return cls([entry.value for entry in entries], [entry.headers for entry in entries], None, lists)

    def __len__(self) -> int:
        return len(self.arrow) if self.arrow is not None else len(self.values)

    @property
    def seqs(self) -> list[int]:
        return self._list("seq")

    @property
    def keys(self) -> list[str]:
        return self._list("key")

    @property
    def ids(self) -> list[str | None]:
        return self._list("id")

    @property
    def salts(self) -> list[int]:
        return self._list("salt")

    @property
    def times_ms(self) -> list[int]:
        return self._list("timestamp")

    def _list(self, name: str) -> list[Any]:
        found = self._lists.get(name)
        if found is None:
            assert self.arrow is not None
            found = self._lists[name] = self.arrow.field(name).to_pylist()
        return found


class AggregateDecoder:
    """Decodes bodies that were written with one schema: an aggregate's, or one plain value's.

    ``reader`` None gives records as they were written; else fields are resolved to the reader's schema (defaults,
    aliases, promotions). ``validation`` "needed" runs the pass of ``validate.py`` where hostile bytes could hurt
    fastavro, "always" for every body. Safe to call from many threads.

    Raises SchemaError if a schema cannot be used; ``decode`` and ``decode_value`` raise DecodeError for bytes that are
    not one value of it, or that do not resolve to the reader's schema.
    """

    __slots__ = ("_bounded", "_check", "_columns", "_limits", "_reader", "_reason", "_writer", "is_envelope")

    def __init__(
        self,
        writer_text: str,
        reader: ValueSchema | None = None,
        limits: Limits | None = None,
        validation: Literal["needed", "always"] = "needed",
    ) -> None:
        self._limits = limits or Limits()
        self.is_envelope = is_envelope(writer_text)
        tree: Any
        if self.is_envelope:
            written = value_schema_of(writer_text)
            tree = envelope_tree(json.loads(written.text), "long")
            resolved = None if reader is None or reader == written else envelope_tree(json.loads(reader.text), "long")
        else:
            tree = json_tree(writer_text)
            resolved = json.loads(reader.text) if reader is not None else None
        avro = parse_type(tree, depth_max=SCHEMA_DEPTH_MAX + _ENVELOPE_DEPTH)
        self._writer = fastavro_form(with_bounded_decimals(tree))
        self._reader = fastavro_form(resolved) if resolved is not None and resolved != tree else None
        self._columns: ColumnDecoder | None = None
        if self.is_envelope and self._reader is None and validation == "needed":
            self._columns = column_decoder(written.type)
        self._bounded: dict[str, Any] | None = None  # the writer's schema with its recursion bounded, where it has any
        self._check: Validate | None = None
        self._reason: Validate | None = None
        if is_recursive(avro) and isinstance(avro, Record) and self._reader is None:
            self._bounded = unrolled(avro)
        if validation == "always" or has_items_without_bytes(avro) or (is_recursive(avro) and self._bounded is None):
            self._check = compile_validator(avro, self._limits)
        elif self._bounded is not None:
            self._reason = compile_validator(avro, self._limits)

    def decode(self, body: bytes) -> list[Entry]:
        """The records of an aggregate, in its order; none for the body of an END."""
        if not self.is_envelope:
            raise InvariantError("decode() is for aggregates; this schema is a plain record's: use decode_value()")
        entries = [Entry(*record.values()) for record in self._read(body)["records"]]
        for entry in entries:
            if entry.headers:
                headers: list[Any] = entry.headers
                entry.headers = [(header["key"], header["value"]) for header in headers]
        return entries

    def decode_columns(self, body: bytes, *, with_values: bool = True) -> Columns:
        """The records of an aggregate as columns, through pyruhvro where it can. Without ``with_values`` the values may be
        in ``arrow`` alone. Raises as ``decode`` does."""
        if self._columns is not None and len(body) <= self._limits.body_bytes_max:
            arrow = self._columns.decode(body)
            values: list[dict[str, Any] | None] | None = []
            if arrow is not None and with_values:
                values = self._columns.rows(arrow.field("value"))
            if arrow is not None and values is not None:
                return Columns(values, None, arrow, {})
        return Columns.of_entries(self.decode(body))

    def cut(self, body: bytes, index: int) -> bytes:
        """The body of an aggregate that holds one record of this one, byte for byte. The body has to be one that ``decode``
        takes."""
        source = io.BytesIO(body)
        entry: Any = fastavro.parse_schema(self._writer["fields"][0]["type"]["items"])
        at = 0
        while count := _long(source):
            if count < 0:  # a block that says its size in bytes, too
                count = -count
                _long(source)
            for _ in range(count):
                start = source.tell()
                fastavro.schemaless_reader(source, entry, None)
                if at == index:
                    return b"\x02" + body[start : source.tell()] + b"\x00"
                at += 1
        raise InvariantError(f"an aggregate of {at} records has no record {index}")

    def decode_value(self, body: bytes) -> Any:
        """The value of a plain message: a dict for a record, else what the schema describes."""
        if self.is_envelope:
            raise InvariantError("decode_value() is for plain messages; this schema is an aggregate's: use decode()")
        return self._read(body)

    def _read(self, body: bytes) -> Any:
        if self._check is not None:
            self._check(body)
        elif len(body) > self._limits.body_bytes_max:
            raise DecodeError(f"the body has {len(body):,} bytes, the limit is {self._limits.body_bytes_max:,}")
        source = io.BytesIO(body)
        try:
            value = fastavro.schemaless_reader(source, self._bounded or self._writer, self._reader)
        except DecodeError:
            raise
        except EOFError:
            if self._reason is not None:
                self._reason(body)  # too deep, perhaps
            raise DecodeError(f"truncated: the value goes on after the {len(body):,} bytes of the body") from None
        except IndexError:
            raise DecodeError("not a value of its schema: truncated, or an index out of range") from None
        except UnicodeDecodeError:
            raise DecodeError("not a value of its schema: a string that is not UTF-8") from None
        except fastavro.read.SchemaResolutionError:
            raise DecodeError("written with a schema that does not resolve to the reader's schema") from None
        except Exception as error:  # noqa: BLE001 - fastavro lets IndexError, OverflowError, KeyError and others through
            # Not its text: that may hold a part of the record.
            raise DecodeError(f"not a value of its schema ({type(error).__name__})") from None
        if source.tell() != len(body):
            raise DecodeError(f"trailing bytes: the value takes {source.tell():,} bytes, the body has {len(body):,}")
        return value


def _long(source: io.BytesIO) -> int:
    number: Any = fastavro.schemaless_reader(source, "long", None)
    return int(number)
