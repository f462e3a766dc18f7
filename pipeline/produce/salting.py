"""Salting in time: looks at the producer's skew once a second, and writes what should change into the control log."""

from __future__ import annotations

import logging
import time

from pipeline.model.salting import SaltPolicy
from pipeline.model.shards import SALT, ShardMap
from pipeline.produce.skew import Skew
from pipeline.reshard.control_log import ControlLog

log = logging.getLogger("headrace.produce")
LOOK_S = 1.0
KEYS = 20  # the most frequent keys that are looked at


class Salting:
    """Of a salted stream. Owned by the settling thread."""

    def __init__(self, producer: str, skew: Skew) -> None:
        self._producer = producer
        self._skew = skew
        self._policy = SaltPolicy(producer)
        self._looked_at = 0.0

    def look(self, control: ControlLog, shard_map: ShardMap) -> None:
        now = time.monotonic()
        if now < self._looked_at + LOOK_S:
            return
        self._looked_at = now
        weights = {heavy.key: heavy.count - heavy.error for heavy in self._skew.top(KEYS)}
        for key, count in self._policy.look(weights, self._skew.total, len(shard_map.leaves), shard_map.salts):
            control.append({"type": SALT, "key": key, "count": count, "producer": self._producer})
            log.info("stream %s: a key goes over %d salts", control.stream.name, count)
