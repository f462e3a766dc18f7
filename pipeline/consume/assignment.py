"""Where to start, and what may be read now: the lineage gate over a group's members (DESIGN.md §3, reader rules 2 and 4).

Holds no client: positions come in, decisions go out. The members of a group need no word between them: each reads the
others' committed positions.
"""

from __future__ import annotations

from collections.abc import Mapping

from pipeline.model.gate import readable_places
from pipeline.model.shards import Place, Shard, ShardMap


def start_offset(
    shard_map: ShardMap, place: Place, committed: Mapping[Place, int], start: str, low: int, end: int
) -> int:
    """Offset to start reading a partition at.

    ``start`` ("earliest" or "latest") is for groups that are new to the stream: a place without a commit whose ancestors
    have one starts at its beginning whatever ``start`` says, or records between the parents' seals and its end would be
    passed over.
    """
    if place in committed:
        return committed[place]
    shards = shard_map.at_place(place)
    ancestors = shard_map.ancestors(shards[0].id) if shards else set()
    is_new = not any(shard_map.shards[ancestor].place in committed for ancestor in ancestors)
    return end if start == "latest" and is_new else low


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
