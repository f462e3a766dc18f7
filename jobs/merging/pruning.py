"""Which files of a table a micro-batch's keys can lie in. Pure.

Delta reads the files whose statistics meet a condition on the key. One range from the smallest to the largest key covers the
whole table as soon as a single old key is among many new ones, so the keys are cut where they are farthest apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, datetime
from decimal import Decimal
from itertools import pairwise
from typing import Any

KEYS_MAX = 20_000
"""Keys that are brought to the driver for it; a larger micro-batch has one range."""
RANGES_MAX = 32
"""Each costs a comparison for every file of the table, in every micro-batch."""
_PREFIX_BYTES = 8


def key_ranges(values: Sequence[Any], ranges_max: int = RANGES_MAX) -> list[tuple[Any, Any]]:
    """At most ``ranges_max`` disjoint (low, high), both inclusive, that hold all values, in order; the gaps left out are the
    widest. ``values`` are of one orderable type, none of them None."""
    ordered = sorted(set(values))
    if not ordered:
        return []
    places = _places(ordered)
    gaps = [(after - before, n) for n, (before, after) in enumerate(pairwise(places), 1)]
    cuts = sorted(n for _, n in sorted(gaps, key=lambda gap: (-gap[0], gap[1]))[: ranges_max - 1])
    starts, ends = [0, *cuts], [*cuts, len(ordered)]
    return [(ordered[start], ordered[end - 1]) for start, end in zip(starts, ends, strict=True)]


def _places(ordered: Sequence[Any]) -> list[Any]:
    """Numbers whose distances tell how far apart the values are."""
    first = ordered[0]
    if isinstance(first, str):
        encoded = [value.encode() for value in ordered]
        shared = _shared(encoded[0], encoded[-1])
        return [int.from_bytes(value[shared : shared + _PREFIX_BYTES].ljust(_PREFIX_BYTES, b"\0")) for value in encoded]
    if isinstance(first, datetime):
        return [(value - first).total_seconds() for value in ordered]
    if isinstance(first, date):
        return [value.toordinal() for value in ordered]
    if isinstance(first, int | Decimal):
        return list(ordered)
    raise TypeError(f"keys of type {type(first).__name__} have no distance")


def _shared(first: bytes, last: bytes) -> int:
    """Bytes that all values begin with, seen from the smallest and the largest."""
    for n, (one, other) in enumerate(zip(first, last, strict=False)):
        if one != other:
            return n
    return min(len(first), len(last))
