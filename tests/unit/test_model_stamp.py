"""Stamps: the bytes on the wire, and what is refused."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pipeline.errors import DecodeError
from pipeline.model.stamp import NAME_BYTES_MAX, Stamp, decode_stamp, encode_stamp

STAMP = Stamp("s0", "p", 1, 5, 7, -1, 3, 64)


def test_the_bytes_of_a_stamp_are_a_version_and_avro() -> None:
    assert encode_stamp(STAMP) == b"\x01" + b"\x04s0" + b"\x02p" + b"\x02" + b"\x0a" + b"\x0e" + b"\x01" + b"\x06" + b"\x80\x01"


@pytest.mark.parametrize("data", [b"", b"\x00", b"\x02" + encode_stamp(STAMP)[1:], b"\xff\xff"])
def test_another_version_is_refused(data: bytes) -> None:
    with pytest.raises(DecodeError, match="version"):
        decode_stamp(data)


@pytest.mark.parametrize(
    "changes",
    [
        {"first_seq": -1},
        {"last_seq": 4},
        {"count": 0},
        {"count": 4},
        {"previous_seq": 5},
        {"previous_seq": -2},
    ],
)
def test_sequences_that_do_not_fit_together_are_refused(changes: dict[str, int]) -> None:
    with pytest.raises(DecodeError, match="do not fit"):
        decode_stamp(encode_stamp(replace(STAMP, **changes)))  # type: ignore[arg-type]


def test_a_long_name_is_refused_before_it_is_read() -> None:
    longest = replace(STAMP, producer="p" * NAME_BYTES_MAX)
    assert decode_stamp(encode_stamp(longest)) == longest
    with pytest.raises(DecodeError, match="oversized name"):
        decode_stamp(encode_stamp(replace(STAMP, producer="p" * (NAME_BYTES_MAX + 1))))


def test_a_name_that_is_not_utf8_is_refused() -> None:
    with pytest.raises(DecodeError, match="UTF-8"):
        decode_stamp(b"\x01\x02\xff" + encode_stamp(STAMP)[4:])


@pytest.mark.parametrize("number", [b"\x80" * 10, b"\x80" * 11 + b"\x00", b"\xff" * 9 + b"\x7f"])
def test_a_number_of_more_than_64_bits_is_refused(number: bytes) -> None:
    with pytest.raises(DecodeError, match="number"):
        decode_stamp(b"\x01\x04s0\x02p" + number + b"\x00" * 5)
