"""The bytes before a body: Confluent's, and AWS Glue's on reading."""

from __future__ import annotations

import tracemalloc
import uuid
import zlib

import pytest

from pipeline.errors import DecodeError
from pipeline.schema.framing import GLUE_BODY_BYTES_MAX, frame, is_glue, split_frame, split_glue

VERSION = uuid.UUID("01234567-89ab-cdef-0123-456789abcdef")
PLAIN, PACKED = b"\x03\x00" + VERSION.bytes, b"\x03\x05" + VERSION.bytes


def test_a_body_comes_back_from_its_frame() -> None:
    assert split_frame(frame(77, b"body")) == (77, b"body")
    assert not is_glue(frame(77, b"body" * 10))


@pytest.mark.parametrize("message", [PLAIN + b"body", PACKED + zlib.compress(b"body")])
def test_a_body_comes_back_from_glues_frame(message: bytes) -> None:
    assert is_glue(message)
    assert split_glue(message) == (VERSION, b"body")


@pytest.mark.parametrize(
    ("message", "words"),
    [
        (b"", "18 bytes"), (PLAIN[:17], "18 bytes"), (b"\x00" + PLAIN[1:], "18 bytes"), (b"\x03\x07" + PLAIN[2:], "18 bytes"),
        (PACKED + b"not zlib", "is not"), (PACKED + zlib.compress(b"body")[:-2], "cut short"),
        (PACKED + zlib.compress(b"body") + b"more", "more behind it"), (PLAIN + bytes(GLUE_BODY_BYTES_MAX + 1), "more than"),
    ],
)  # fmt: skip
def test_what_is_not_glues_frame_is_refused(message: bytes, words: str) -> None:
    with pytest.raises(DecodeError, match=words):
        split_glue(message)


def test_a_body_that_would_fill_the_memory_is_refused_in_little_of_it() -> None:
    bomb = PACKED + zlib.compress(bytes(40_000_000), 9)
    tracemalloc.start()
    with pytest.raises(DecodeError, match="more than"):
        split_glue(bomb)
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak_bytes < 2.3 * GLUE_BODY_BYTES_MAX
