"""Avro's zigzag varints from tables: one dictionary look-up for the numbers that occur most."""

from __future__ import annotations

from pipeline.schema.avro_types import INT_MAX, INT_MIN, LONG_MAX, LONG_MIN

# 14 bits at a time: two bytes that go on, and one or two bytes that end a number.
_GOES_ON = [bytes((n & 0x7F | 0x80, n >> 7 | 0x80)) for n in range(1 << 14)]
_ENDS = [bytes((n,)) if n < 0x80 else bytes((n & 0x7F | 0x80, n >> 7)) for n in range(1 << 14)]
# Numbers kept ready: all that take one or two bytes (lengths, counts, small amounts). About 1 MB.
_READY_MAX = 1 << 13
_RELATIVE_MAX = 1 << 16
_HIGH_MAX = 1 << 12


def encode_long(number: int) -> bytes:
    """The zigzag varint of a number of 64 bits. Raises OverflowError outside."""
    if not LONG_MIN <= number <= LONG_MAX:
        raise OverflowError("does not fit into 64 bits")
    rest = (number << 1) ^ (number >> 63)
    if rest < 0x4000:
        return _ENDS[rest]
    if rest < 0x1000_0000:
        return _GOES_ON[rest & 0x3FFF] + _ENDS[rest >> 14]
    if rest < 0x400_0000_0000:
        return _GOES_ON[rest & 0x3FFF] + _GOES_ON[rest >> 14 & 0x3FFF] + _ENDS[rest >> 28]
    parts = [_GOES_ON[rest & 0x3FFF], _GOES_ON[rest >> 14 & 0x3FFF]]
    rest >>= 28
    while rest >= 0x4000:
        parts.append(_GOES_ON[rest & 0x3FFF])
        rest >>= 14
    parts.append(_ENDS[rest])
    return b"".join(parts)


def encode_int(number: int) -> bytes:
    """The zigzag varint of a number of 32 bits. Raises OverflowError outside."""
    if not INT_MIN <= number <= INT_MAX:
        raise OverflowError("does not fit into 32 bits")
    return encode_long(number)


class _Table(dict[int, bytes]):
    """Small numbers are found; others are computed and not kept. Look up exact ints only: ``True`` and ``1.0`` equal 1."""

    def __missing__(self, number: int) -> bytes:
        return encode_long(number)


class _IntTable(dict[int, bytes]):
    def __missing__(self, number: int) -> bytes:
        return encode_int(number)


class _RelativeTable(_IntTable):
    """Sequences of an aggregate's records come in rows: those met are kept, up to a bound of about 9 MB."""

    def __missing__(self, number: int) -> bytes:
        raw = encode_int(number)
        if len(self) < _RELATIVE_MAX:
            self[number] = raw
        return raw


class _HighTable(dict[int, bytes]):
    """What follows the first two bytes of a long varint. Times and counters share it for a while: those met are kept."""

    def __missing__(self, number: int) -> bytes:
        if not 0 < number < 1 << 50:
            raise OverflowError("does not fit into 64 bits")
        rest, out = number, bytearray()
        while rest > 0x7F:
            out.append(rest & 0x7F | 0x80)
            rest >>= 7
        out.append(rest)
        if len(self) >= _HIGH_MAX:
            self.clear()
        self[number] = raw = bytes(out)
        return raw


# The varint of a number outside [-READY, READY): LOW[z & 0x3FFF] + HIGH[z >> 14], where z is its zigzag.
READY = _READY_MAX
LOW = _GOES_ON
HIGH: dict[int, bytes] = _HighTable()
LONGS: dict[int, bytes] = _Table((n, encode_long(n)) for n in range(-_READY_MAX, _READY_MAX))
INTS: dict[int, bytes] = _IntTable(LONGS)
RELATIVE: dict[int, bytes] = _RelativeTable()


def zigzag(number: int) -> bytes:
    """The varint of an int of 64 bits; numbers of one or two bytes come from a table. Raises OverflowError outside."""
    return LONGS[number]


def unzigzag(raw: bytes) -> int:
    """The int of one of our own varints."""
    rest = shift = 0
    for byte in raw:
        rest |= (byte & 0x7F) << shift
        shift += 7
    return (rest >> 1) ^ -(rest & 1)
