"""The lineage gate."""

from __future__ import annotations

from typing import Any

import pytest

from pipeline.model.gate import drained, readable, readable_places
from pipeline.model.keys import HASH_NAME, HASH_SPACE
from pipeline.model.shards import COMMIT, CREATED, PREPARE, Place, Shard, ShardMap, shard_event

HALF, QUARTER = HASH_SPACE // 2, HASH_SPACE // 4
P = [("t", partition) for partition in range(6)]


def lineage(*, empty: bool = False) -> ShardMap:
    """s0 (partition 0, sealed at 10) → s1 (stays), s2 (partition 1). s1, sealed at 20, and s2, at 5 or 0 → s3 (partition 2).
    s3, sealed at 0 → s4 (stays), s5 (partition 3)."""

    def prepare(name: str, parents: list[str], *children: Shard) -> dict[str, Any]:
        made = [shard_event(child) for child in children]
        scan_from = dict.fromkeys(parents, 0)
        return {"type": PREPARE, "reshard": name, "parents": parents, "children": made, "scan_from": scan_from}

    events: list[dict[str, Any]] = [
        {
            "type": CREATED,
            "shards": [shard_event(Shard("s0", 0, HASH_SPACE, *P[0]))],
            "hash": HASH_NAME,
            "subject": "v",
            "ordering": "strict",
        },
        prepare("a", ["s0"], Shard("s1", 0, HALF, *P[0]), Shard("s2", HALF, HASH_SPACE, *P[1])),
        {"type": COMMIT, "reshard": "a", "seals": {"s0": 10}},
        prepare("b", ["s1", "s2"], Shard("s3", 0, HASH_SPACE, *P[2])),
        {"type": COMMIT, "reshard": "b", "seals": {"s1": 20, "s2": 0 if empty else 5}},
        prepare("c", ["s3"], Shard("s4", 0, QUARTER, *P[2]), Shard("s5", QUARTER, HASH_SPACE, *P[3])),
        {"type": COMMIT, "reshard": "c", "seals": {"s3": 0}},
    ]
    shard_map = ShardMap()
    for offset, event in enumerate(events):
        shard_map = shard_map.apply(event, offset)
    assert shard_map.ignored == 0
    return shard_map


@pytest.mark.parametrize(
    ("processed", "places"),
    [
        ({}, {P[0]}),
        ({P[0]: 9}, {P[0]}),
        ({P[0]: 10}, {P[0], P[1]}),
        ({P[0]: 21}, {P[0], P[1]}),
        ({P[0]: 21, P[1]: 4}, {P[0], P[1]}),
        ({P[0]: 19, P[1]: 6}, {P[0], P[1]}),
        ({P[0]: 21, P[1]: 6}, {P[0], P[1], P[2]}),
        ({P[0]: 21, P[1]: 6, P[2]: 1}, {P[0], P[1], P[2], P[3]}),
    ],
)
def test_a_place_is_readable_when_every_ancestor_of_its_oldest_shard_is_drained(
    processed: dict[Place, int], places: set[Place]
) -> None:
    assert readable_places(lineage(), processed) == places


def test_a_child_stays_shut_when_a_grandparent_is_read_again() -> None:
    assert readable_places(lineage(), {P[0]: 3, P[1]: 6, P[2]: 1, P[3]: 100}) == {P[0]}


def test_an_empty_parent_is_drained_only_when_its_reader_committed() -> None:
    """Its reader inherits marks and hands them on with that commit; without it the child would know of no repeats."""
    assert readable_places(lineage(empty=True), {P[0]: 21}) == {P[0], P[1]}
    assert readable_places(lineage(empty=True), {P[0]: 21, P[1]: 0}) == {P[0], P[1], P[2]}


def test_a_parent_counts_as_drained_when_retention_took_it() -> None:
    shard_map = lineage()
    assert drained(shard_map.shards["s0"], {}, {P[0]: 11})
    assert not drained(shard_map.shards["s0"], {}, {P[0]: 10})
    assert readable(shard_map, {}, {P[0]: 11}) == {"s0": True, "s1": True, "s2": True, "s3": False, "s4": False, "s5": False}


def test_an_open_shard_is_never_drained() -> None:
    assert not drained(lineage().shards["s5"], {P[3]: 10**9}, {P[3]: 10**9})
