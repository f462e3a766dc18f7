"""Routing: hash key → shard."""

from __future__ import annotations

from pipeline.model.shards import ShardMap


class Router:
    """Owned by its producer's lock."""

    def __init__(self, shard_map: ShardMap) -> None:
        self._map = shard_map

    def adopt(self, shard_map: ShardMap) -> None:
        """Route by a newer map from now on."""
        self._map = shard_map

    def route(self, hashed: int) -> str:
        """The id of the leaf that owns the hash key."""
        return self._map.route(hashed).id
