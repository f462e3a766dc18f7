"""From the body of a message to records: fastavro, behind the checks that make it safe on hostile bytes."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass
from typing import Any, Literal

import fastavro

from pipeline.errors import DecodeError, InvariantError
from pipeline.schema.envelope import envelope_tree, is_envelope, value_schema_of
from pipeline.schema.type_parser import SCHEMA_DEPTH_MAX, parse_type
from pipeline.schema.validate import Limits, Validate, compile_validator, needs_validation
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


class AggregateDecoder:
    """Decodes bodies that were written with one schema: an aggregate's, or one plain value's.

    ``reader`` None gives records as they were written; else fields are resolved to the reader's schema (defaults,
    aliases, promotions). ``validation`` "needed" runs the pass of ``validate.py`` where hostile bytes could hurt
    fastavro, "always" for every body. Safe to call from many threads.

    Raises SchemaError if a schema cannot be used; ``decode`` and ``decode_value`` raise DecodeError for bytes that are
    not one value of it, or that do not resolve to the reader's schema.
    """

    __slots__ = ("_check", "_limits", "_reader", "_writer", "is_envelope")

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
        self._writer = fastavro_form(tree)
        self._reader = fastavro_form(resolved) if resolved is not None and resolved != tree else None
        self._check: Validate | None = None
        if validation == "always" or needs_validation(avro):
            self._check = compile_validator(avro, self._limits)

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
            value = fastavro.schemaless_reader(source, self._writer, self._reader)
        except EOFError:
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
