"""Confluent's framing of a message: magic byte 0, the schema's id in four bytes (big endian), the Avro body.

AWS Glue's is read too: byte 3, a byte for the compression (0 none, 5 zlib), the UUID of the schema's version in sixteen
bytes, the body. Glue's registry is not asked: whoever reads such a topic gives the schema.
"""

from __future__ import annotations

import struct
import uuid
import zlib

from pipeline.errors import DecodeError

FRAME_BYTES = 5
SCHEMA_ID_MAX = 2**31 - 1
_HEADER = struct.Struct(">bI")
GLUE_VERSION, GLUE_BYTES = 3, 18
GLUE_PLAIN, GLUE_ZLIB = 0, 5
GLUE_BODY_BYTES_MAX = 16 * 1024 * 1024


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


def is_glue(message: bytes | memoryview) -> bool:
    """Whether a message is framed as AWS Glue's serializer does it."""
    return len(message) >= GLUE_BYTES and message[0] == GLUE_VERSION and message[1] in (GLUE_PLAIN, GLUE_ZLIB)


def split_glue(message: bytes | memoryview) -> tuple[uuid.UUID, bytes]:
    """Id of the schema's version and body of a message with Glue's framing. Raises DecodeError if it has none, or if its
    body, compressed or not, is larger than 16 MiB."""
    if not is_glue(message):
        raise DecodeError("the message does not start with the 18 bytes of AWS Glue's framing")
    version, body = uuid.UUID(bytes=bytes(message[2:GLUE_BYTES])), bytes(message[GLUE_BYTES:])
    if message[1] == GLUE_ZLIB:
        body = _inflated(body)
    if len(body) > GLUE_BODY_BYTES_MAX:
        raise DecodeError(f"the body has more than {GLUE_BODY_BYTES_MAX:,} bytes")
    return version, body


def _inflated(packed: bytes) -> bytes:
    inflater = zlib.decompressobj()
    try:
        body = inflater.decompress(packed, GLUE_BODY_BYTES_MAX + 1)
    except zlib.error:
        raise DecodeError("the body says that it is compressed with zlib, and is not") from None
    if len(body) <= GLUE_BODY_BYTES_MAX and (not inflater.eof or inflater.unused_data):
        raise DecodeError("the compressed body is cut short, or has more behind it")
    return body
