"""Where a group starts, over a lineage."""

from __future__ import annotations

from pipeline.consume.assignment import gate, marks_sources, shard_at, starting_positions
from pipeline.model.keys import HASH_NAME, HASH_SPACE
from pipeline.model.shards import Shard, ShardMap, shard_event

HALF = HASH_SPACE // 2


def split_map() -> ShardMap:
    """s0 in partition 0, sealed at 10, split into s1 (same partition) and s2 (partition 1)."""
    root = Shard("s0", 0, HASH_SPACE, "t", 0)
    events = [
        {"type": "CREATED", "shards": [shard_event(root)], "hash": HASH_NAME, "subject": "t-value", "ordering": "strict"},
        {
            "type": "PREPARE",
            "reshard": "r",
            "parents": ["s0"],
            "children": [shard_event(Shard("s1", 0, HALF, "t", 0)), shard_event(Shard("s2", HALF, HASH_SPACE, "t", 1))],
            "scan_from": {"s0": 5},
        },
        {"type": "COMMIT", "reshard": "r", "seals": {"s0": 10}},
    ]
    shard_map = ShardMap()
    for offset, event in enumerate(events):
        shard_map = shard_map.apply(event, offset)
    assert shard_map.ignored == 0
    return shard_map


def test_a_child_goes_back_to_its_beginning_when_its_parent_is_not_drained() -> None:
    wanted = {("t", 0): 9, ("t", 1): 70}
    assert starting_positions(split_map(), wanted, {("t", 1): 3}) == {("t", 0): 9, ("t", 1): 3}


def test_a_child_starts_where_wanted_when_its_parent_is_drained() -> None:
    wanted = {("t", 0): 10, ("t", 1): 70}
    assert starting_positions(split_map(), wanted, {}) == wanted


def test_a_child_is_gated_until_its_parent_is_committed_up_to_the_seal() -> None:
    shard_map = split_map()
    assert gate(shard_map, {}, {}) == {("t", 0)}
    assert gate(shard_map, {("t", 0): 9}, {}) == {("t", 0)}
    assert gate(shard_map, {("t", 0): 10}, {}) == {("t", 0), ("t", 1)}


def test_a_gate_opens_when_retention_took_the_parent() -> None:
    assert gate(split_map(), {}, {("t", 0): 11}) == {("t", 0), ("t", 1)}


def test_the_shard_at_an_offset_changes_behind_the_seal() -> None:
    shard_map = split_map()
    found = [shard_at(shard_map, ("t", 0), offset) for offset in (0, 10, 11)]
    assert [shard.id for shard in found if shard] == ["s0", "s0", "s1"]


def test_marks_come_whole_from_a_partitions_own_commit_also_behind_its_last_seal() -> None:
    assert marks_sources(split_map(), ("t", 0), 11, {("t", 0)}.__contains__) == [(("t", 0), 0, HASH_SPACE)]


def test_a_child_without_marks_of_its_own_takes_its_parents_slice() -> None:
    assert marks_sources(split_map(), ("t", 1), 0, {("t", 0)}.__contains__) == [(("t", 0), HALF, HASH_SPACE)]


def test_a_rewound_group_takes_no_marks_before_a_parent_has_some() -> None:
    assert marks_sources(split_map(), ("t", 1), 0, set().__contains__) == []
