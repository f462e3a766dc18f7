"""Rate limits per shard, for brokers with quotas (pure: the time comes in).

A token bucket for bytes and one for records, each as deep as a second's worth. An aggregate goes when both hold anything at
all, and may leave a debt: so one that is larger than the bucket still goes, and the rate holds on average.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from pipeline.produce.aggregate import Aggregate


@dataclass(slots=True)
class Bucket:
    """Tokens that come at ``rate`` a second, at most a second's worth."""

    rate: float
    tokens: float
    at_ms: int

    def refill(self, now_ms: int) -> None:
        self.tokens = min(self.rate, self.tokens + self.rate * max(0, now_ms - self.at_ms) / 1000)
        self.at_ms = max(self.at_ms, now_ms)

    def ready_ms(self) -> int:
        """When it holds something again."""
        return self.at_ms if self.tokens > 0 else self.at_ms + math.ceil((1 - self.tokens) / self.rate * 1000)


class ShardLimits:
    """The buckets of one producer's shards. Owned by its lock."""

    def __init__(self, bytes_per_s: int | None, records_per_s: int | None) -> None:
        self._rates = [bytes_per_s, records_per_s]
        self._buckets: dict[str, list[Bucket]] = {}
        self._held_since_ms: dict[str, int] = {}
        self.held_ms = 0
        """How long aggregates that could have gone were held back, summed over shards."""

    def allow(self, aggregate: Aggregate, now_ms: int) -> bool:
        """Whether the aggregate may go now; if so its tokens are taken."""
        if self._rates == [None, None]:
            return True
        shard = aggregate.shard
        if shard not in self._buckets:
            self._buckets[shard] = [Bucket(rate or math.inf, rate or math.inf, now_ms) for rate in self._rates]
        buckets = self._buckets[shard]
        for bucket in buckets:
            if bucket.rate != math.inf:
                bucket.refill(now_ms)
        if any(bucket.tokens <= 0 for bucket in buckets):
            self._held_since_ms.setdefault(shard, now_ms)
            return False
        self.held_ms += now_ms - self._held_since_ms.pop(shard, now_ms)
        for bucket, amount in zip(buckets, (aggregate.size_bytes, aggregate.count), strict=True):
            bucket.tokens -= amount
        return True

    def keep(self, shards: set[str]) -> None:
        """Forget all other shards."""
        self._buckets = {shard: buckets for shard, buckets in self._buckets.items() if shard in shards}
        self._held_since_ms = {shard: since for shard, since in self._held_since_ms.items() if shard in shards}

    def next_ms(self) -> int | None:
        """When a shard that is held back may send again; None if none is."""
        return min((max(b.ready_ms() for b in self._buckets[shard]) for shard in self._held_since_ms), default=None)
