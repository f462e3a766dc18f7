"""Confluent's framing of a message: magic byte 0, the schema's id in four bytes (big endian), the Avro body."""

from __future__ import annotations

import struct

from pipeline.errors import DecodeError

FRAME_BYTES = 5
SCHEMA_ID_MAX = 2**31 - 1
_HEADER = struct.Struct(">bI")


def frame_prefix(schema_id: int) -> bytes:
    """The five bytes before every body of one schema. Raises ValueError for an id that is not from 0 to 2^31 - 1."""
    if not 0 <= schema_id <= SCHEMA_ID_MAX:
        raise ValueError(f"{schema_id} is not a schema id (0 to {SCHEMA_ID_MAX})")
    return _HEADER.pack(0, schema_id)


def frame(schema_id: int, body: bytes) -> bytes:
    """The message that carries ``body``, written with the schema of this id."""
    return frame_prefix(schema_id) + body


def split_frame(message: bytes | memoryview) -> tuple[int, bytes]:
    """Schema id and body of a message. Raises DecodeError if it is not framed so."""
    if len(message) < FRAME_BYTES:
        raise DecodeError(f"the message has {len(message)} bytes, fewer than the {FRAME_BYTES} of Confluent's framing")
    magic, schema_id = _HEADER.unpack_from(message)
    if magic != 0:
        raise DecodeError(f"the message starts with byte {magic & 0xFF}, not with the 0 of Confluent's framing")
    if schema_id > SCHEMA_ID_MAX:
        raise DecodeError(f"the message names the schema id {schema_id}, more than a registry gives")
    return schema_id, bytes(message[FRAME_BYTES:])
