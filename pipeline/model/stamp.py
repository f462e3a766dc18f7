"""The stamp: one Kafka header that says which shard, producer and sequences a message carries (DESIGN.md §4).

One version byte, then the Avro encoding of

    record HeadraceStamp { shard: string, producer: string, incarnation: long, first_seq: long, last_seq: long,
                           previous_seq: long, count: int, created_at: timestamp-millis }

It is written by hand here, not through an Avro library: a stamp is read for every message, also by the survey that reads
nothing else, and its bytes come from outside, so every length is bounded before it is used.
"""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.errors import DecodeError

STAMP_HEADER = "headrace"
END_HEADER = "headrace-end"
CLAIM_HEADER = "headrace-claim"  # the value is a reference to an object in a claim store
REDRIVE_HEADER = "headrace-redrive"  # of a record in a message of a redrive; from anybody else it says nothing
REDRIVE_PRODUCER = "redrive-"  # a redrive's name is this and its run
STAMP_VERSION = 1
NAME_BYTES_MAX = 1024  # of a shard id or a producer name; a longer one is not ours
_LONG_BYTES_MAX = 10  # 64 bits, seven a byte


@dataclass(frozen=True, slots=True)
class Stamp:
    """What a message says of itself. Sequences are of (producer, incarnation); ``previous_seq`` is the last sequence that
    this incarnation sent to this shard before, -1 at first, so that a reader sees a hole. ``count`` is in records."""

    shard: str
    producer: str
    incarnation: int
    first_seq: int
    last_seq: int
    previous_seq: int
    count: int
    created_at_ms: int


def encode_stamp(stamp: Stamp) -> bytes:
    """The header's value."""
    shard = stamp.shard.encode()
    producer = stamp.producer.encode()
    return b"".join(
        (
            bytes((STAMP_VERSION,)),
            _long(len(shard)),
            shard,
            _long(len(producer)),
            producer,
            _long(stamp.incarnation),
            _long(stamp.first_seq),
            _long(stamp.last_seq),
            _long(stamp.previous_seq),
            _long(stamp.count),
            _long(stamp.created_at_ms),
        )
    )


def decode_stamp(data: bytes) -> Stamp:
    """The stamp of a header's value. Raises DecodeError on another version, truncated or trailing bytes, or impossible
    sequences: such a message is not ours."""
    if not data or data[0] != STAMP_VERSION:
        raise DecodeError(f"stamp version {data[0] if data else 'missing'} is not {STAMP_VERSION}")
    shard, at = _read_name(data, 1)
    producer, at = _read_name(data, at)
    incarnation, at = _read_long(data, at)
    first_seq, at = _read_long(data, at)
    last_seq, at = _read_long(data, at)
    previous_seq, at = _read_long(data, at)
    count, at = _read_long(data, at)
    created_at_ms, at = _read_long(data, at)
    if at != len(data):
        raise DecodeError("bytes after the end of a stamp")
    if not (0 <= first_seq <= last_seq and 1 <= count <= last_seq - first_seq + 1 and -1 <= previous_seq < first_seq):
        raise DecodeError("a stamp whose sequences do not fit together")
    return Stamp(shard, producer, incarnation, first_seq, last_seq, previous_seq, count, created_at_ms)


def _long(value: int) -> bytes:
    value = (value << 1) ^ (value >> 63)
    out = bytearray()
    while value > 0x7F:
        out.append((value & 0x7F) | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _read_long(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    for byte in data[at : at + _LONG_BYTES_MAX]:
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            if value >= 1 << 64:
                break
            return (value >> 1) ^ -(value & 1), at + shift // 7
    raise DecodeError("a truncated or oversized number in a stamp")


def _read_name(data: bytes, at: int) -> tuple[str, int]:
    size, at = _read_long(data, at)
    if not 0 <= size <= NAME_BYTES_MAX or at + size > len(data):
        raise DecodeError("a truncated or oversized name in a stamp")
    try:
        return data[at : at + size].decode(), at + size
    except UnicodeDecodeError as error:
        raise DecodeError("a name in a stamp is not UTF-8") from error
