"""Stamps: what is written is read back, and whatever bytes come in, nothing but DecodeError comes out."""

from __future__ import annotations

import io

import fastavro
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import DecodeError
from pipeline.model.stamp import STAMP_VERSION, Stamp, decode_stamp, encode_stamp

property_settings = settings(max_examples=300, deadline=None, database=None, print_blob=True)
LONG_MAX = (1 << 63) - 1
SCHEMA = fastavro.parse_schema(
    {
        "type": "record",
        "name": "HeadraceStamp",
        "fields": [
            {"name": "shard", "type": "string"},
            {"name": "producer", "type": "string"},
            {"name": "incarnation", "type": "long"},
            {"name": "first_seq", "type": "long"},
            {"name": "last_seq", "type": "long"},
            {"name": "previous_seq", "type": "long"},
            {"name": "count", "type": "int"},
            {"name": "created_at", "type": "long"},
        ],
    }
)
names = st.text(max_size=100)


@st.composite
def stamps(draw: st.DrawFn) -> Stamp:
    first = draw(st.integers(0, LONG_MAX))
    last = draw(st.integers(first, min(LONG_MAX, first + (1 << 31) - 2)))
    return Stamp(
        draw(names),
        draw(names),
        draw(st.integers(0, LONG_MAX)),
        first,
        last,
        draw(st.integers(-1, first - 1)),
        draw(st.integers(1, min(last - first + 1, (1 << 31) - 1))),
        draw(st.integers(-LONG_MAX - 1, LONG_MAX)),
    )


@property_settings
@given(stamps())
def test_a_stamp_is_read_back_as_it_was_written(stamp: Stamp) -> None:
    assert decode_stamp(encode_stamp(stamp)) == stamp


@property_settings
@given(stamps())
def test_the_bytes_are_what_an_avro_library_writes(stamp: Stamp) -> None:
    out = io.BytesIO()
    values = (stamp.shard, stamp.producer, stamp.incarnation, stamp.first_seq, stamp.last_seq, stamp.previous_seq, stamp.count)
    names_ = [field["name"] for field in SCHEMA["fields"]]  # type: ignore[index,call-overload]
    fastavro.schemaless_writer(out, SCHEMA, dict(zip(names_, (*values, stamp.created_at_ms), strict=True)))
    assert encode_stamp(stamp) == bytes((STAMP_VERSION,)) + out.getvalue()


def decode_or_refuse(data: bytes) -> Stamp | None:
    try:
        return decode_stamp(data)
    except DecodeError:
        return None


@property_settings
@given(st.binary(max_size=200) | st.binary(max_size=200).map(lambda rest: bytes((STAMP_VERSION,)) + rest))
def test_any_bytes_are_a_stamp_or_a_decode_error(data: bytes) -> None:
    stamp = decode_or_refuse(data)
    if stamp is not None:
        assert 0 <= stamp.first_seq <= stamp.last_seq
        assert 1 <= stamp.count <= stamp.last_seq - stamp.first_seq + 1
        assert -1 <= stamp.previous_seq < stamp.first_seq


@property_settings
@given(stamps(), st.data())
def test_a_damaged_stamp_is_another_stamp_or_a_decode_error(stamp: Stamp, data: st.DataObject) -> None:
    encoded = bytearray(encode_stamp(stamp))
    at = data.draw(st.integers(0, len(encoded) - 1))
    encoded[at] ^= data.draw(st.integers(1, 255))
    decode_or_refuse(bytes(encoded))
    with pytest.raises(DecodeError):
        decode_stamp(encode_stamp(stamp)[:at])
    with pytest.raises(DecodeError):
        decode_stamp(encode_stamp(stamp) + b"\x00")


@property_settings
@given(st.integers(0, 1 << 70), st.binary(max_size=20))
def test_a_huge_length_allocates_nothing(length: int, rest: bytes) -> None:
    prefix = bytearray((STAMP_VERSION,))
    value = length << 1
    while value > 0x7F:
        prefix.append((value & 0x7F) | 0x80)
        value >>= 7
    prefix.append(value)
    if length > len(rest):
        with pytest.raises(DecodeError):
            decode_stamp(bytes(prefix) + rest)
