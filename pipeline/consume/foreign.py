"""Records of producers that are not ours: Avro framed by Confluent or AWS Glue, JSON, or bytes as they are. All bounded."""

from __future__ import annotations

import json
from typing import Any

from pipeline.consume.decoders import Decoders
from pipeline.errors import DecodeError
from pipeline.kafka.group_reader import Fetched
from pipeline.schema.framing import is_glue, split_frame, split_glue

JSON_BYTES_MAX = 16 << 20
NO_SCHEMA = -1


def foreign_record(form: str, fetched: Fetched, decoders: Decoders) -> tuple[int, Any]:
    """(schema id, or -1; value) of a message without a stamp; value None is a tombstone. Raises DecodeError."""
    raw = fetched.value
    if raw is None:
        return NO_SCHEMA, None
    if form == "bytes":
        return NO_SCHEMA, raw
    if form == "json":
        return NO_SCHEMA, _json(raw)
    if is_glue(raw):
        return NO_SCHEMA, decoders.given().decode_value(split_glue(raw)[1])
    schema_id, body = split_frame(raw)
    found = decoders.get(schema_id)
    if found.is_envelope:
        raise DecodeError("an aggregate without a stamp: it cannot be placed in its stream")
    return schema_id, found.decode_value(body)


def _json(raw: bytes) -> Any:
    if len(raw) > JSON_BYTES_MAX:
        raise DecodeError(f"the message has {len(raw):,} bytes, the limit is {JSON_BYTES_MAX:,}")
    try:
        return json.loads(raw)
    except UnicodeDecodeError as error:
        raise DecodeError(f"not JSON: not UTF-8 at byte {error.start}") from None
    except ValueError as error:
        # Not its text: that may hold a part of the record.
        raise DecodeError(f"not JSON (at character {getattr(error, 'pos', 0)})") from None
    except RecursionError:
        raise DecodeError("JSON nested too deep") from None
