"""How uneven a producer's records are: the share of the most frequent keys, and the Gini coefficient over shards.

Counted per aggregate as it is sent: of each, a few records stand for all. The past counts for half after each million
records, so the figures are those of lately.
"""

from __future__ import annotations

from pipeline import metrics
from pipeline.model.sketch import Heavy, SpaceSaving, gini
from pipeline.produce.aggregate import Aggregate
from pipeline.schema.entry import entry_key

SAMPLES_MAX = 32  # records looked at in an aggregate
KEYS = 512
HALVE_AT = 1_000_000
TOPS = (1, 10)


class Skew:
    """Fed by the sender's thread alone; read by scrapes."""

    def __init__(self, stream: str) -> None:
        self._stream = stream
        self._keys: SpaceSaving[str] = SpaceSaving(KEYS)
        self._shards: dict[str, float] = {}
        self._shares: tuple[float, ...] = ()
        metrics.LIVE.watch(self.read_gauges)

    def add(self, aggregate: Aggregate) -> None:
        bodies = aggregate.sample(SAMPLES_MAX)
        for body in bodies:
            self._keys.add(entry_key(body), aggregate.count / len(bodies))
        self._shards[aggregate.shard] = self._shards.get(aggregate.shard, 0.0) + aggregate.count
        if self._keys.total > HALVE_AT:
            self._keys.scale(0.5)
            self._shards = {shard: count / 2 for shard, count in self._shards.items() if count > 1}

    def top(self, number: int) -> list[Heavy[str]]:
        """The most frequent keys, with what they weigh of ``total``."""
        return self._keys.top(number)

    @property
    def total(self) -> float:
        return self._keys.total

    def read_gauges(self) -> list[metrics.Sample]:
        """For a scrape, on another thread: copies are taken first."""
        total = self._keys.total
        if not total:
            return []
        counts = [heavy.count - heavy.error for heavy in self._keys.top(max(TOPS))]
        shares = [(metrics.TOP_KEYS_SHARE, (self._stream, str(top)), min(1.0, sum(counts[:top]) / total)) for top in TOPS]
        return [*shares, (metrics.SHARD_GINI, (self._stream,), gini(list(self._shards.values())))]
