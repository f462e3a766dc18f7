"""Repeats of explicit dedup ids within a window (`dedup: window 1h`, DESIGN.md §5).

An id counts from its *first sight*: another record with it that was written at most a window later is a duplicate. Times are
those of the messages, not of the reader's clock, so whoever reads the same log decides the same. A record that is read again
is not a duplicate of itself: its place tells. Pure.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from pipeline.model.shards import Place

IDS_MAX = 500_000  # of one partition; about 100 MB


class Sight(NamedTuple):
    """Where and when an id was seen first; ``record`` is the index in its message."""

    at_ms: int
    place: Place
    offset: int
    record: int


@dataclass(slots=True)
class IdWindow:
    """The ids of one partition's records. Bounded: above ``ids_max`` the oldest go, and ``forgotten`` counts them: from then on
    the window is shorter than it says. Not thread-safe."""

    window_ms: int
    ids_max: int = IDS_MAX
    forgotten: int = 0
    _seen: dict[str, Sight] = field(default_factory=dict)
    _newest_ms: int = 0

    def is_new(self, id: str, sight: Sight) -> bool:
        """Whether this is the first sight of an id in its window; takes note of it if so."""
        first = self._seen.get(id)
        if first is not None and first[1:] == sight[1:]:
            return True
        if first is not None and 0 <= sight.at_ms - first.at_ms <= self.window_ms:
            return False
        if first is not None and sight.at_ms < first.at_ms:
            return False  # clocks of producers differ: what stands later in the log is the later
        self._seen.pop(id, None)  # the newest stand at the end
        self._seen[id] = sight
        self._newest_ms = max(self._newest_ms, sight.at_ms)
        self._prune()
        return True

    def __len__(self) -> int:
        return len(self._seen)

    def _prune(self) -> None:
        """Amortized: at most two go for each that came."""
        oldest_ms = self._newest_ms - self.window_ms
        for _ in range(2):
            oldest = next(iter(self._seen))
            if self._seen[oldest].at_ms < oldest_ms:
                del self._seen[oldest]
            elif len(self._seen) > self.ids_max:
                del self._seen[oldest]
                self.forgotten += 1
            else:
                return
