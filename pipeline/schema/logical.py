"""Logical types on the way in: from datetime, Decimal and UUID to the value that Avro writes.

Every converter takes the Python value or the raw one (int, bytes, str) and gives the raw one, checked against what a
reader can make of it again: a number of milliseconds that no datetime can hold is refused here, not at the consumer.
They raise TypeError or ValueError whose text says what was expected, never the content.
"""

from __future__ import annotations

import datetime
import decimal
import numbers
import uuid
from collections.abc import Callable
from typing import Any

from fastavro.write import LOGICAL_WRITERS

from pipeline.schema.avro_types import LONG_MAX, LONG_MIN, Fixed, Logical, Primitive

_DAY_MS = 86_400_000
_EPOCH = datetime.datetime(1970, 1, 1)
_FIRST_US = (datetime.datetime.min - _EPOCH) // datetime.timedelta(microseconds=1)
_LAST_US = (datetime.datetime.max - _EPOCH) // datetime.timedelta(microseconds=1)
_FIRST_DAY = datetime.date.min.toordinal() - _EPOCH.toordinal()
_LAST_DAY = datetime.date.max.toordinal() - _EPOCH.toordinal()

# The whole range of raw ints that Python can read back, by logical type.
INT_RANGES: dict[str, tuple[int, int]] = {
    "date": (_FIRST_DAY, _LAST_DAY),
    "time-millis": (0, _DAY_MS - 1),
    "time-micros": (0, _DAY_MS * 1_000 - 1),
    "timestamp-millis": (-(-_FIRST_US // 1_000), _LAST_US // 1_000),
    "local-timestamp-millis": (-(-_FIRST_US // 1_000), _LAST_US // 1_000),
    "timestamp-micros": (_FIRST_US, _LAST_US),
    "local-timestamp-micros": (_FIRST_US, _LAST_US),
    "timestamp-nanos": (LONG_MIN, LONG_MAX),
    "local-timestamp-nanos": (LONG_MIN, LONG_MAX),
}
_PYTHON_TYPES: dict[str, type] = {
    "date": datetime.date,
    "time-millis": datetime.time,
    "time-micros": datetime.time,
}
# A naive datetime would be taken for this machine's local time, and a time zone would be dropped in silence: both are other
# times on another machine.
_ZONE = {
    True: "expected a datetime with its time zone ({}), found one without: say which, as in datetime.now(timezone.utc)",
    False: "expected a datetime without time zone ({}), found one with: use timestamp-… for points in time",
}
# Bytes of a raw decimal beyond what its precision needs; reading a longer one takes time with the square of its length.
_DECIMAL_SPARE_BYTES = 16

Convert = Callable[[Any], Any]


def converter(avro: Primitive | Fixed) -> Convert | None:
    """The function that brings a value of the type's logical type to its raw form; None if values need none."""
    logical = avro.logical
    if logical is None or logical.name == "duration":
        return None
    if logical.name == "decimal":
        return _decimal(logical, avro.size_bytes if isinstance(avro, Fixed) else None)
    if logical.name == "uuid":
        return _uuid_bytes if isinstance(avro, Fixed) else _uuid_text
    return _point_in_time(logical.name, avro.name)


def decimal_bytes_max(logical: Logical) -> int:
    """The most bytes that a decimal of this precision may take on the wire."""
    precision: int = 10**logical.precision
    return precision.bit_length() // 8 + 1 + _DECIMAL_SPARE_BYTES


def _point_in_time(name: str, base: str) -> Convert:
    low, high = INT_RANGES[name]
    python_type = _PYTHON_TYPES.get(name, datetime.datetime)
    nanos = name.endswith("-nanos")
    # Python knows microseconds only: nanoseconds of a datetime end with three zeros, finer ones are given as ints.
    write = LOGICAL_WRITERS[f"{base}-{name.replace('-nanos', '-micros')}"]
    limits = f"from {low} to {high}"
    zoned = None if python_type is not datetime.datetime else not name.startswith("local-")

    def convert(value: Any) -> int:
        if isinstance(value, python_type):
            if isinstance(value, datetime.datetime) and zoned is not None and (value.utcoffset() is not None) is not zoned:
                raise ValueError(_ZONE[zoned].format(name))
            raw: int = write(value, {}) * (1_000 if nanos else 1)
        elif isinstance(value, numbers.Integral) and not isinstance(value, bool):
            raw = int(value)
        else:
            raise TypeError(f"expected {python_type.__name__} or int ({name}), found {type(value).__name__}")
        if not low <= raw <= high:
            raise ValueError(f"expected {name} {limits}, found a number outside")
        return raw

    return convert


def _uuid_text(value: Any) -> str:
    if isinstance(value, uuid.UUID):
        return str(value)
    if not isinstance(value, str):
        raise TypeError(f"expected UUID or string (uuid), found {type(value).__name__}")
    try:
        uuid.UUID(value)
    except ValueError:
        raise ValueError("expected a string that is a UUID") from None
    return value


def _uuid_bytes(value: Any) -> bytes:
    if isinstance(value, uuid.UUID):
        return value.bytes
    if isinstance(value, bytes | bytearray) and len(value) == 16:
        return bytes(value)
    raise TypeError(f"expected UUID or 16 bytes (uuid), found {type(value).__name__}")


def _decimal(logical: Logical, size_bytes: int | None) -> Convert:
    precision, scale = logical.precision, logical.scale
    limit: int = 10**precision
    bytes_max = decimal_bytes_max(logical) if size_bytes is None else size_bytes
    what = f"decimal({precision}, {scale})"

    def convert(value: Any) -> bytes:
        if isinstance(value, decimal.Decimal):
            sign, digits, exponent = value.as_tuple()
            if not isinstance(exponent, int):
                raise ValueError(f"expected {what}, found one that is not finite")
            if exponent < -scale:
                raise ValueError(f"expected {what}, found {-exponent} digits after the point")
            # Before the power: an exponent of a billion would take minutes.
            if exponent + scale + len(digits) > precision and any(digits):
                raise ValueError(f"expected {what}, found more than {precision - scale} digits before the point")
            unscaled = int(decimal.Decimal((sign, digits, 0))) * (10 ** (exponent + scale) if any(digits) else 0)
            size = size_bytes if size_bytes is not None else (abs(unscaled).bit_length() + 8) // 8
            return unscaled.to_bytes(size, "big", signed=True)
        if not isinstance(value, bytes | bytearray):
            raise TypeError(f"expected Decimal ({what}), found {type(value).__name__}")
        if not 1 <= len(value) <= bytes_max or (size_bytes is not None and len(value) != size_bytes):
            raise ValueError(f"expected {what}, found bytes of the wrong length")
        if not -limit < int.from_bytes(value, "big", signed=True) < limit:
            raise ValueError(f"expected {what}, found bytes of more digits")
        return bytes(value)

    return convert
