"""From a Python value to Avro bytes, at the speed that ``put`` needs.

    encode = compile_encoder(schema)        one value
    entries = EntryEncoder(schema)          one record of an aggregate: everything of HeadraceEntry after ``seq``
    aggregate_body(...)                     the aggregate around the entries

Each schema gets an encoder of its own (``generate.py``); what that one gives up goes through ``interpret.py``, which
decides whether the value fits and says where it does not. Both write what fastavro writes, byte for byte.

All of it is safe to call from many threads.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol

from pipeline.errors import SchemaMismatchError
from pipeline.schema.avro_types import Primitive, Record
from pipeline.schema.generate import Generator, indent, row
from pipeline.schema.interpret import interpret
from pipeline.schema.logical import INT_RANGES
from pipeline.schema.value_schema import ValueSchema
from pipeline.schema.varint import INTS, encode_int, encode_long, zigzag

__all__ = ["EntryEncoder", "Headers", "aggregate_body", "compile_encoder", "zigzag"]

Headers = Sequence[tuple[str, bytes | None]]
Value = Mapping[str, Any] | bytes

# Keys repeat: their bytes are kept, but long ones are not, so a stream's keys cost at most about 8 MB.
_KEYS_MAX = 16_384
_KEY_CHARACTERS_MAX = 128
_TIMES_MAX = 1_024
_FIRST_MS, _LAST_MS = INT_RANGES["timestamp-millis"]


def compile_encoder(schema: ValueSchema) -> Callable[[Mapping[str, Any]], bytes]:
    """The function that encodes one value of the schema.

    It raises SchemaMismatchError with the path of the field (``"pilot.age"``) and the reason. A field without a default
    must be there, and a field that the schema does not have is refused: to drop it in silence would lose it.
    """
    generator = Generator(schema.type)
    generator.names["interpret"] = _interpreter(schema.type)
    generator.names["SchemaMismatchError"] = SchemaMismatchError
    value = [*generator.check_record(schema.type, "value"), f"return {row(generator.record_parts(schema.type, 'value'))}"]
    generator.lines += ["def encode(value):", "    whole_value = value", *indent(_depth(generator)), "    try:"]
    generator.lines += [*indent(indent(value)), "    except Exception:", "        return interpret(whole_value)"]
    encode: Callable[[Mapping[str, Any]], bytes] = generator.compile("encode")
    return encode


class _Encode(Protocol):
    def __call__(
        self, key: str, id: str | None, salt: int, timestamp_ms: int, headers: Headers | None, value: Value | None, /
    ) -> bytes: ...


class EntryEncoder:
    """Encodes records for aggregates of one schema.

    ``encode(key, id, salt, timestamp_ms, headers, value) -> bytes`` gives a HeadraceEntry without its ``seq``, which is
    known only when the aggregate is sealed. ``timestamp_ms`` is milliseconds since 1970 UTC, ``value`` None a tombstone; where
    the schema has one field, of bytes, it may be those bytes.
    It raises SchemaMismatchError; its ``field`` is a path in the value, or ``""`` for what stands around it.
    """

    __slots__ = ("encode", "schema")

    encode: _Encode

    def __init__(self, schema: ValueSchema) -> None:
        self.schema = schema
        self.encode = _compile_entry(schema)


def aggregate_body(entries: Iterable[tuple[int, bytes]]) -> bytes:
    """The body of an aggregate from (sequence relative to the stamp's first_seq, bytes of EntryEncoder), in their order."""
    parts = [zigzag(relative_seq) + entry for relative_seq, entry in entries]
    if not parts:
        return b"\x00"
    return b"".join((zigzag(len(parts)), *parts, b"\x00"))


def _compile_entry(schema: ValueSchema) -> _Encode:
    generator = Generator(schema.type)
    generator.names |= {
        "KEYS": _Keys(),
        "text_of_key": _text_of_key,
        "TIMES": _Times(b"\x00\x00", b"\x00\x02"),
        "front": _front,
        "interpret": _interpreter(schema.type),
    }
    value = [*generator.check_record(schema.type, "value")]
    value += [f"return {row(['start', 'front_rest', *generator.record_parts(schema.type, 'value')])}"]
    generator.lines += [
        "def encode(key, id, salt, timestamp_ms, headers, value):",
        "    try:",
        "        start = KEYS[key]",
        "    except TypeError:",  # not even hashable
        "        start = text_of_key(key)",
        "    if value is None:",
        "        return start + front(id, salt, timestamp_ms, headers) + ZERO",
        "    if id is None and salt == 0 and not headers:",
        # One look-up gives id null, salt 0, the timestamp, no headers and the union's index of V.
        "        front_rest = TIMES[timestamp_ms]",
        "    else:",
        "        front_rest = front(id, salt, timestamp_ms, headers) + TWO",
        *(_AS_THEY_ARE if is_raw(schema.type) else []),
        "    whole_value = value",
        *indent(_depth(generator)),
        "    try:",
        *indent(indent(value)),
        "    except Exception:",
        "        return start + front_rest + interpret(whole_value)",
    ]
    generator.names |= {"TWO": b"\x02", "SIZES": INTS}
    encode: _Encode = generator.compile("encode")
    return encode


# A record of one field of bytes: the bytes may be put without a dict around them.
_AS_THEY_ARE = ["    if value.__class__ is bytes:", "        return start + front_rest + SIZES[len(value)] + value"]


def is_raw(avro: Record) -> bool:
    """Whether bytes may be put without a dict around them: a record of one field, of bytes."""
    types = [one.type for one in avro.fields]
    return len(types) == 1 and isinstance(types[0], Primitive) and types[0].name == "bytes" and types[0].logical is None


def _depth(generator: Generator) -> list[str]:
    return ["depth = 0"] if generator.parameter else []


def _interpreter(avro: Record) -> Callable[[Any], bytes]:
    def slowly(value: Any) -> bytes:
        return interpret(avro, value)

    return slowly


def _front(id: str | None, salt: int, timestamp_ms: int, headers: Headers | None) -> bytes:
    """The entry from ``id`` to ``headers``."""
    parts = [b"\x00" if id is None else b"\x02" + _text(id, "the dedup id")]
    if salt.__class__ is not int:
        raise SchemaMismatchError("", f"the salt must be an int, found {type(salt).__name__}")
    try:
        parts.append(encode_int(salt))
    except OverflowError:
        raise SchemaMismatchError("", "the salt does not fit into 32 bits") from None
    parts.append(_time(timestamp_ms))
    if headers:
        parts.append(zigzag(len(headers)))
        for name, content in headers:
            parts.append(_text(name, "the name of a header"))
            if content is None:
                parts.append(b"\x00")
            elif isinstance(content, bytes | bytearray | memoryview):
                raw = bytes(content)
                parts += (b"\x02", INTS[len(raw)], raw)
            else:
                raise SchemaMismatchError("", f"the value of a header must be bytes or None, found {type(content).__name__}")
    parts.append(b"\x00")
    return b"".join(parts)


def _text(value: Any, what: str) -> bytes:
    if not isinstance(value, str):
        raise SchemaMismatchError("", f"{what} must be a string, found {type(value).__name__}")
    try:
        raw = str.encode(value)
    except UnicodeEncodeError:
        raise SchemaMismatchError("", f"{what} holds a lone surrogate, which UTF-8 cannot hold") from None
    return INTS[len(raw)] + raw


def _text_of_key(key: Any) -> bytes:
    return _text(key, "the partition key")


def _time(timestamp_ms: Any) -> bytes:
    # One time that no datetime can hold would make the whole aggregate unreadable for plain Avro clients.
    if timestamp_ms.__class__ is not int or not _FIRST_MS <= timestamp_ms <= _LAST_MS:
        raise SchemaMismatchError("", "the timestamp must be an int of milliseconds since 1970, in the years 1 to 9999")
    return encode_long(timestamp_ms)


class _Keys(dict[str, bytes]):
    """Partition keys and their bytes. Emptied when full: simple, thread-safe, and the hot keys are back at once."""

    def __missing__(self, key: str) -> bytes:
        raw = _text_of_key(key)
        if len(key) <= _KEY_CHARACTERS_MAX:
            if len(self) >= _KEYS_MAX:
                self.clear()
            self[key] = raw
        return raw


class _Times(dict[int, bytes]):
    """Timestamps and their bytes, with what stands before and after them in most entries."""

    def __init__(self, before: bytes, after: bytes) -> None:
        super().__init__()
        self.before, self.after = before, after

    def __missing__(self, timestamp_ms: int) -> bytes:
        raw = self.before + _time(timestamp_ms) + self.after
        if len(self) >= _TIMES_MAX:
            self.clear()
        self[timestamp_ms] = raw
        return raw
