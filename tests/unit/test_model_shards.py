"""The shard map: each event's rules, one by one."""

from __future__ import annotations

from typing import Any

import pytest

from pipeline.model.keys import HASH_NAME, HASH_SPACE
from pipeline.model.shards import ABORT, CLAIM, COMMIT, CREATED, PREPARE, Shard, ShardMap, ShardState, shard_event

HALF, QUARTER = HASH_SPACE // 2, HASH_SPACE // 4
Event = dict[str, Any]


def created(**changes: Any) -> Event:
    shards = [Shard("s0", 0, HALF, "t", 0), Shard("s1", HALF, HASH_SPACE, "t", 1)]
    event = {"type": CREATED, "shards": [shard_event(s) for s in shards], "hash": HASH_NAME, "subject": "v", "ordering": "strict"}
    return event | changes


def split(name: str = "r", *, stays: bool = True, **changes: Any) -> Event:
    children = [Shard("s2", 0, QUARTER, "t", 0 if stays else 2), Shard("s3", QUARTER, HALF, "t", 3)]
    event = {"type": PREPARE, "reshard": name, "parents": ["s0"], "children": [shard_event(c) for c in children]}
    return event | {"scan_from": {"s0": 5}} | changes


def children_of_s0(*partitions: int) -> Event:
    bounds = (0, QUARTER, HALF)
    children = [Shard(f"s{2 + i}", bounds[i], bounds[i + 1], "t", partition) for i, partition in enumerate(partitions)]
    return split() | {"children": [shard_event(child) for child in children]}


def merge(partition: int = 2) -> Event:
    child = shard_event(Shard("s2", 0, HASH_SPACE, "t", partition))
    return {"type": PREPARE, "reshard": "m", "parents": ["s0", "s1"], "children": [child], "scan_from": {"s0": 5, "s1": 6}}


def commit(name: str = "r", **seals: int) -> Event:
    return {"type": COMMIT, "reshard": name, "seals": seals or {"s0": 5}}


def replay(*events: Event | None) -> ShardMap:
    shard_map = ShardMap()
    for offset, event in enumerate(events):
        shard_map = shard_map.apply(event, offset)
    return shard_map


def test_a_split_seals_the_parent_and_opens_the_children() -> None:
    shard_map = replay(created(), split())
    assert shard_map.shards["s0"].state is ShardState.SEALING
    assert [leaf.id for leaf in shard_map.leaves] == ["s0", "s1"], "children take nothing before COMMIT"
    shard_map = shard_map.apply(commit(), 2)
    assert shard_map.ignored == 0
    assert [leaf.id for leaf in shard_map.leaves] == ["s2", "s3", "s1"]
    parent, child = shard_map.shards["s0"], shard_map.shards["s2"]
    assert (parent.state, parent.seal, parent.children) == (ShardState.SEALED, 5, ("s2", "s3"))
    assert (child.generation, child.parents, child.place) == (1, ("s0",), ("t", 0))


def test_a_record_is_void_from_the_seal_on() -> None:
    parent = replay(created(), split(), commit()).shards["s0"]
    assert [parent.is_void(offset) for offset in (4, 5, 6)] == [False, True, True]
    assert not replay(created(), split()).shards["s0"].is_void(10**9)


def test_a_merge_is_one_generation_after_its_highest_parent() -> None:
    join = merge(4) | {"parents": ["s3", "s1"], "scan_from": {"s3": 0, "s1": 0}}
    join["children"] = [shard_event(Shard("s4", QUARTER, HASH_SPACE, "t", 4))]
    shard_map = replay(created(), split(), commit(), join, commit("m", s3=0, s1=7))
    assert shard_map.ignored == 0
    child = shard_map.shards["s4"]
    assert (child.generation, child.parents) == (2, ("s3", "s1"))
    assert shard_map.ancestors("s4") == {"s3", "s1", "s0"}
    assert [s.id for s in shard_map.in_lineage_order()] == ["s0", "s1", "s2", "s3", "s4"]
    assert [s.id for s in shard_map.at_place(("t", 0))] == ["s0", "s2"]


def test_the_first_outcome_counts_when_commit_and_abort_race() -> None:
    abort = {"type": ABORT, "reshard": "r"}
    committed = replay(created(), split(), commit(), abort, commit(s0=9))
    assert (committed.shards["s0"].seal, committed.ignored) == (5, 2)
    aborted = replay(created(), split(), abort, commit())
    assert aborted.shards["s0"].state is ShardState.OPEN
    assert aborted.shards.keys() == {"s0", "s1"}
    assert aborted.ignored == 1


def test_a_name_of_a_finished_reshard_is_not_taken_again() -> None:
    assert replay(created(), split(), {"type": ABORT, "reshard": "r"}, split()).ignored == 1
    assert replay(created(), split(), {"type": ABORT, "reshard": "r"}, split("again")).ignored == 0


def test_two_reshards_at_once_are_both_valid_only_when_they_share_nothing() -> None:
    other = split("q", parents=["s1"], scan_from={"s1": 0})
    children = [Shard("s4", HALF, HALF + QUARTER, "t", 1), Shard("s5", HALF + QUARTER, HASH_SPACE, "t", 4)]
    other["children"] = [shard_event(child) for child in children]
    assert len(replay(created(), split(), other).pending) == 2
    taken = other | {"children": [other["children"][0], other["children"][1] | {"partition": 3}]}
    assert replay(created(), split(), taken).ignored == 1
    named = other | {"children": [other["children"][0], other["children"][1] | {"id": "s3"}]}
    assert replay(created(), split(), named).ignored == 1


@pytest.mark.parametrize(
    "event",
    [
        merge(0),
        merge(1),
        children_of_s0(1, 3),
        children_of_s0(0, 0),
        split() | {"children": [shard_event(Shard("s2", 0, QUARTER, "t", 2))]},
        split() | {"children": [shard_event(Shard("s2", 0, HALF + 1, "t", 2))]},
        split() | {"parents": ["s0", "s0"]},
        split() | {"scan_from": {"s1": 5}},
        split() | {"scan_from": {"s0": 1e999}},
        split() | {"scan_from": [5]},
        split() | {"children": {"s2": 1}},
        split() | {"children": ["s2"]},
        commit("r"),
        {"type": CLAIM, "producer": "p", "incarnation": 1e999, "token": "x"},
        {"type": CLAIM, "producer": "p", "incarnation": 2, "token": "x"},
        created(),
    ],
)
def test_an_event_is_ignored_when_it_is_not_valid_at_its_place(event: Event) -> None:
    shard_map = replay(created(), event)
    assert shard_map.ignored == 1
    assert shard_map.shards == replay(created()).shards
    assert not shard_map.pending
    assert not shard_map.claims


@pytest.mark.parametrize(
    "seals", [{}, {"s0": 4}, {"s0": 5, "s1": 5}, {"s1": 5}, {"s0": None}, {"s0": 1e999}, ["s0"], "s0", 7, [{}]]
)
def test_a_commit_is_ignored_when_its_seals_are_not_the_parents_after_the_scan(seals: object) -> None:
    shard_map = replay(created(), split(), {"type": COMMIT, "reshard": "r", "seals": seals})
    assert shard_map.ignored == 1
    assert shard_map.shards["s0"].state is ShardState.SEALING


@pytest.mark.parametrize(
    "changes",
    [
        {"hash": "murmur"},
        {"ordering": "none"},
        {"shards": []},
        {"shards": created()["shards"][:1]},
        {"shards": 1e999},
        {"topic_ids": ["t"]},
    ],
)
def test_a_stream_is_not_created_by_an_event_that_is_not_whole(changes: Event) -> None:
    shard_map = replay(created(**changes))
    assert (shard_map.created, shard_map.ignored) == (False, 1)
    assert replay(created(**changes), created()).created


def test_claims_rise_by_one_and_the_first_of_two_counts() -> None:
    def claim(incarnation: int, token: str) -> Event:
        return {"type": CLAIM, "producer": "p", "incarnation": incarnation, "token": token}

    shard_map = replay(created(), claim(1, "a"), claim(1, "b"), claim(2, "c"), claim(4, "d"))
    assert (shard_map.claims["p"].incarnation, shard_map.claims["p"].token, shard_map.ignored) == (2, "c", 2)


def test_events_carry_hash_keys_as_decimal_strings() -> None:
    event = shard_event(Shard("s0", 0, HASH_SPACE, "t", 0))
    assert event == {"id": "s0", "low": "0", "high": "18446744073709551616", "topic": "t", "partition": 0}
