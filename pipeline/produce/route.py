"""Routing: partition key → hash key → shard, with a bounded memory of keys seen, since keys repeat."""

from __future__ import annotations

from pipeline.model.keys import hash_key
from pipeline.model.shards import ShardMap

KEYS_MAX = 100_000


class Router:
    """Owned by its producer's lock."""

    def __init__(self, shard_map: ShardMap) -> None:
        self._map = shard_map
        self._known: dict[str, tuple[int, str]] = {}

    def adopt(self, shard_map: ShardMap) -> None:
        """Route by a newer map from now on."""
        if shard_map.leaves != self._map.leaves:
            self._known.clear()
        self._map = shard_map

    def route(self, key: str) -> tuple[int, str]:
        """(hash key, shard id)."""
        found = self._known.get(key)
        if found is None:
            if len(self._known) >= KEYS_MAX:
                self._known.clear()
            hashed = hash_key(key)
            found = self._known[key] = (hashed, self._map.route(hashed).id)
        return found

    def route_hash(self, hashed: int) -> tuple[int, str]:
        """For a record that brings its own hash key."""
        return hashed, self._map.route(hashed).id
