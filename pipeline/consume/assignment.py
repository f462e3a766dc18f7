"""Where to start, and what may be read now: the lineage gate over a group's members (DESIGN.md §3, reader rules 2 and 4).

Holds no client: positions come in, decisions go out. The members of a group need no word between them: each reads the
others' committed positions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from pipeline.model.gate import readable_places
from pipeline.model.keys import HASH_SPACE
from pipeline.model.shards import Place, Shard, ShardMap


def starting_positions(
    shard_map: ShardMap, wanted: Mapping[Place, int], log_start: Mapping[Place, int]
) -> dict[Place, int]:
    """Positions for a group that starts, or starts over, at offsets that were ``wanted`` (the ends, or those of a time).

    Where an ancestor is not drained at its position, a shard's partition is read from its beginning: its parents' records
    come again, so its own have to come after them.
    """
    positions: dict[Place, int] = {}
    undrained: set[str] = set()
    for shard in shard_map.in_lineage_order():
        behind = any(parent in undrained for parent in shard.parents)
        place = shard.place
        if place not in positions:
            positions[place] = log_start.get(place, 0) if behind else wanted[place]
        if behind or shard.seal is None or positions[place] < shard.seal:
            undrained.add(shard.id)
    return positions


def gate(shard_map: ShardMap, processed: Mapping[Place, int], log_start: Mapping[Place, int]) -> set[Place]:
    """The places that may be read now. A partition that is no shard's place is not among them: a reshard may be about to
    use it, or somebody else added it."""
    return readable_places(shard_map, processed, log_start)


def shard_at(shard_map: ShardMap, place: Place, offset: int) -> Shard | None:
    """The shard that a partition holds at ``offset``: shards in one place stand one behind the other, each up to its
    seal."""
    for shard in shard_map.at_place(place):
        if shard.seal is None or offset <= shard.seal:
            return shard
    return None


def marks_sources(
    shard_map: ShardMap, place: Place, offset: int, has_marks: Callable[[Place], bool]
) -> list[tuple[Place, int, int]]:
    """Where the marks of a partition that is read from ``offset`` on come from: (place, low, high) to copy, of places whose
    commits have marks.

    A partition's own are taken whole, those of shards that are sealed too: children ask for them. Where none were committed
    (a child that nobody read, or a group that was rewound), the parents' are put side by side; a parent without any passes
    on its own parents'.
    """
    if has_marks(place):
        return [(place, 0, HASH_SPACE)]
    shard = shard_at(shard_map, place, offset)
    sources: list[tuple[Place, int, int]] = []
    if shard is None:
        return sources
    for parent in (shard_map.shards[parent] for parent in shard.parents):
        if parent.place == place or parent.seal is None:
            continue
        for source, low, high in marks_sources(shard_map, parent.place, parent.seal, has_marks):
            low, high = max(low, parent.low, shard.low), min(high, parent.high, shard.high)
            if low < high:
                sources.append((source, low, high))
    return sources
