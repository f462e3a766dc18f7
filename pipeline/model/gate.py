"""The lineage gate: nothing of a child is read before every parent is processed up to its seal (DESIGN.md §3, rule 2).

Held at any depth, so that a rewind replays a key's shards in the order in which they were written. Pure: what was processed
comes in as committed positions.
"""

from __future__ import annotations

from collections.abc import Mapping

from pipeline.model.shards import Place, Shard, ShardMap


def drained(shard: Shard, processed: Mapping[Place, int], log_start: Mapping[Place, int]) -> bool:
    """Whether a sealed shard is processed to its end: its partition's committed (next) offset is at or past the seal, or
    retention already removed everything below the seal. ``position == end`` is never asked: compaction leaves gaps."""
    if shard.seal is None:
        return False
    return processed.get(shard.place, -1) >= shard.seal or log_start.get(shard.place, 0) > shard.seal


def readable(
    shard_map: ShardMap, processed: Mapping[Place, int], log_start: Mapping[Place, int] | None = None
) -> dict[str, bool]:
    """For every shard, whether its gate is open: each ancestor, at any depth, is drained.

    ``processed`` maps a place to the next offset to read there (absent: nothing was read); ``log_start`` to the first
    offset that its partition still has.
    """
    starts = log_start or {}
    is_open: dict[str, bool] = {}
    for shard in shard_map.in_lineage_order():
        is_open[shard.id] = all(
            is_open[parent] and drained(shard_map.shards[parent], processed, starts) for parent in shard.parents
        )
    return is_open


def readable_places(
    shard_map: ShardMap, processed: Mapping[Place, int], log_start: Mapping[Place, int] | None = None
) -> set[Place]:
    """The partitions that may be read now: those whose oldest shard has an open gate. A younger shard in the same
    partition stayed in its only parent's place, so it stands behind it in the log."""
    is_open = readable(shard_map, processed, log_start)
    oldest: dict[Place, str] = {}
    for shard in shard_map.in_lineage_order():
        oldest.setdefault(shard.place, shard.id)
    return {place for place, shard_id in oldest.items() if is_open[shard_id]}
