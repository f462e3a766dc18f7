"""Heavy hitters in bounded memory: the Space-Saving sketch (Metwally, Agrawal, El Abbadi 2005), and how uneven shares are.

With ``capacity`` counters and a total weight of N put in, for every key:

- a key that is tracked has ``count - error <= true weight <= count``, and ``error <= N / capacity``;
- a key that is not tracked has a true weight of at most N / capacity: so each key above N / capacity is tracked.

Property-tested against exact counts. Pure: no clock; ``scale`` is how its caller forgets the past.
"""

from __future__ import annotations

import heapq
from collections.abc import Hashable, Iterable
from dataclasses import dataclass
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)


@dataclass(frozen=True, slots=True)
class Heavy(Generic[Key]):
    """A key and what it weighs: at most ``count``, at least ``count - error``."""

    key: Key
    count: float
    error: float


class SpaceSaving(Generic[Key]):
    """See the module. Not thread-safe. Adding takes O(log capacity)."""

    def __init__(self, capacity: int) -> None:
        if capacity < 1:
            raise ValueError(f"a sketch has at least one counter, not {capacity}")
        self.capacity = capacity
        self.total = 0.0
        self._counters: dict[Key, tuple[float, float]] = {}  # count, error
        # (count, order of coming, key); one that is out of date is passed over when it comes up.
        self._heap: list[tuple[float, int, Key]] = []
        self._order = 0

    def add(self, key: Key, weight: float = 1.0) -> None:
        self.total += weight
        found = self._counters.get(key)
        if found is not None:
            count, error = found[0] + weight, found[1]
        elif len(self._counters) < self.capacity:
            count, error = weight, 0.0
        else:
            least = self._take_least()
            count, error = least + weight, least
        self._set(key, count, error)

    def top(self, number: int) -> list[Heavy[Key]]:
        """The keys of the highest counts, highest first."""
        found = heapq.nlargest(number, list(self._counters.items()), key=lambda item: item[1][0])
        return [Heavy(key, count, error) for key, (count, error) in found]

    def weight(self, key: Key) -> Heavy[Key]:
        """Bounds for one key, tracked or not."""
        count, error = self._counters.get(key, (self.total / self.capacity,) * 2)
        return Heavy(key, count, error)

    def scale(self, factor: float) -> None:
        """Let all that was added count for less: the bounds hold for the weights so scaled."""
        self.total *= factor
        counters = {key: (count * factor, error * factor) for key, (count, error) in self._counters.items()}
        self._counters.clear()
        self._heap.clear()
        for key, (count, error) in counters.items():
            self._set(key, count, error)

    def _set(self, key: Key, count: float, error: float) -> None:
        self._counters[key] = (count, error)
        self._order += 1
        heapq.heappush(self._heap, (count, self._order, key))
        if len(self._heap) > 8 * self.capacity:
            self._heap = [(count, order, key) for order, (key, (count, _)) in enumerate(self._counters.items())]
            heapq.heapify(self._heap)
            self._order = len(self._heap)

    def _take_least(self) -> float:
        """Drop the counter with the least count; returns that."""
        while True:
            count, _, key = heapq.heappop(self._heap)
            if key in self._counters and self._counters[key][0] == count:
                del self._counters[key]
                return count


def gini(shares: Iterable[float]) -> float:
    """How unevenly something is spread: 0 where all have the same, towards 1 where one has all."""
    values = sorted(shares)
    total = sum(values)
    if not values or total <= 0:
        return 0.0
    weighted = sum(rank * value for rank, value in enumerate(values, 1))
    return max(0.0, 2 * weighted / (len(values) * total) - (len(values) + 1) / len(values))
