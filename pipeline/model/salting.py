"""Salting: when a hot key of a salted stream is spread over more hash keys, and when that is taken back (pure).

A key's *load* is its part of a producer's records, in units of what a shard would have if all had the same: 1.0 fills one
shard. It gets as many salts (a power of two) as keep each salt's load at or below ``LOAD_MAX``.

Hysteresis, so that a count does not flap: it rises after ``RISE_AFTER`` looks in a row that ask for more, and falls after
``FALL_AFTER`` that ask for a quarter or less. Whoever set a count may lower it; others may only raise it, since a key that is
hot for one producer may be cold for another.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from xxhash import xxh64_intdigest

LOAD_MAX = 0.5
SALTS_MAX = 64
RISE_AFTER = 2
FALL_AFTER = 30
RECORDS_MIN = 1_000  # fewer records do not tell


def salt_of(dedup_id: str, count: int) -> int:
    """The salt of a record, in 1 to ``count``, from its dedup id; 0 where its key is not salted."""
    return 1 + xxh64_intdigest(dedup_id.encode("utf-8", "surrogatepass"), 7) % count if count > 1 else 0


def salts_for(load: float) -> int:
    """How many salts a key of this load asks for; 1: none."""
    count = 1
    while count < SALTS_MAX and load / count > LOAD_MAX:
        count *= 2
    return count


@dataclass(frozen=True, slots=True)
class Salted:
    """A key's salt count as the control log has it, and which producer set it."""

    count: int
    producer: str


class SaltPolicy:
    """One producer's wishes. Owned by its settling thread."""

    def __init__(self, producer: str) -> None:
        self._producer = producer
        self._rising: dict[str, int] = {}
        self._falling: dict[str, int] = {}

    def look(
        self, weights: Mapping[str, float], total: float, shards: int, salted: Mapping[str, Salted]
    ) -> list[tuple[str, int]]:
        """The (key, salt count) that should change now. ``weights`` are of the most frequent keys, out of ``total``."""
        if total < RECORDS_MIN or shards < 2:
            return []
        wishes = {key: salts_for(weight / total * shards) for key, weight in weights.items()}
        current = {key: salted[key].count if key in salted else 1 for key in {*wishes, *salted}}
        mine = [key for key, one in salted.items() if one.producer == self._producer]
        rising = (key for key, wish in wishes.items() if wish > current[key])
        falling = (key for key in mine if wishes.get(key, 1) * 4 <= current[key])
        self._rising = _counted(self._rising, rising)
        self._falling = _counted(self._falling, falling)
        up = [(key, wishes[key]) for key, looks in self._rising.items() if looks >= RISE_AFTER]
        down = [(key, wishes.get(key, 1)) for key, looks in self._falling.items() if looks >= FALL_AFTER]
        return up + down


def _counted(before: Mapping[str, int], keys: Iterable[str]) -> dict[str, int]:
    return {key: before.get(key, 0) + 1 for key in keys}
