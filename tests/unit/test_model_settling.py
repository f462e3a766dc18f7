"""Settling: the rules of DESIGN.md §3, one by one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest

from pipeline.errors import InvariantError
from pipeline.model.keys import HASH_NAME, HASH_SPACE
from pipeline.model.settling import Fate, Settling, fate
from pipeline.model.shards import ABORT, COMMIT, CREATED, PREPARE, Shard, ShardMap, shard_event

HALF, QUARTER = HASH_SPACE // 2, HASH_SPACE // 4


@dataclass
class Rec:
    seq: int
    hash_key: int


@dataclass(eq=False)
class Box:
    shard: str
    inside: list[Rec] = field(default_factory=list)

    @property
    def first_seq(self) -> int:
        return self.inside[0].seq

    @property
    def seqs(self) -> list[int]:
        return [record.seq for record in self.inside]

    def records(self) -> Sequence[Rec]:
        return self.inside


def box(shard: str, *seqs: int, hash_key: int = 0) -> Box:
    return Box(shard, [Rec(seq, hash_key) for seq in seqs])


def start() -> ShardMap:
    """s0 [0, half) and s1 [half, end)."""
    shards = [Shard("s0", 0, HALF, "t", 0), Shard("s1", HALF, HASH_SPACE, "t", 1)]
    event = {"type": CREATED, "shards": [shard_event(s) for s in shards], "hash": HASH_NAME, "subject": "v", "ordering": "strict"}
    return ShardMap().apply(event, 0)


def after(shard_map: ShardMap, event: dict[str, Any]) -> ShardMap:
    changed = shard_map.apply(event, shard_map.position)
    assert changed.ignored == 0
    return changed


def prepared(shard_map: ShardMap, name: str, parents: list[str], *children: Shard) -> ShardMap:
    event = {"type": PREPARE, "reshard": name, "parents": parents, "children": [shard_event(c) for c in children]}
    return after(shard_map, event | {"scan_from": dict.fromkeys(parents, 0)})


def sealing() -> ShardMap:
    return prepared(start(), "r", ["s0"], Shard("s2", 0, QUARTER, "t", 0), Shard("s3", QUARTER, HALF, "t", 2))


def split(seal: int) -> ShardMap:
    return after(sealing(), {"type": COMMIT, "reshard": "r", "seals": {"s0": seal}})


def merging() -> ShardMap:
    return prepared(start(), "m", ["s0", "s1"], Shard("s4", 0, HASH_SPACE, "t", 4))


def merged(seal0: int, seal1: int) -> ShardMap:
    return after(merging(), {"type": COMMIT, "reshard": "m", "seals": {"s0": seal0, "s1": seal1}})


def settling() -> Settling:
    return Settling(start(), lambda shard, records: [Box(shard, list(records))] if records else [])


def sent(core: Settling, *boxes: Box) -> None:
    for each in boxes:
        core.enqueue(each)
    assert core.take_sendable(10) == list(boxes)


def seqs(boxes: list[Box]) -> list[tuple[str, list[int]]]:
    return [(each.shard, each.seqs) for each in boxes]


@pytest.mark.parametrize(
    ("shard_map", "offset", "expected"),
    [
        (start(), 3, Fate.ACKNOWLEDGE),
        (start(), None, Fate.ACKNOWLEDGE),
        (sealing(), 3, Fate.HOLD),
        (sealing(), None, Fate.HOLD),
        (split(3), 2, Fate.ACKNOWLEDGE),
        (split(3), 3, Fate.SEND_AGAIN),
        (split(3), 4, Fate.SEND_AGAIN),
        (split(3), None, Fate.SEND_AGAIN),
    ],
)
def test_the_fate_of_a_delivery_is_told_by_its_shard_s_state_and_seal(
    shard_map: ShardMap, offset: int | None, expected: Fate
) -> None:
    assert fate(shard_map, "s0", offset) is expected


def test_a_delivery_waits_for_the_next_barrier_when_it_came_after_this_one_began() -> None:
    core = settling()
    one, two = box("s0", 1), box("s0", 2)
    sent(core, one, two)
    core.delivered(one, 0)
    tick = core.begin_barrier()
    core.delivered(two, 1)
    assert core.settle(start(), tick) == [(one, 0)]
    assert core.waits_for_barrier
    assert core.settle(start(), core.begin_barrier()) == [(two, 1)]
    assert core.idle


def test_a_view_acknowledges_nothing() -> None:
    core = settling()
    one = box("s0", 1)
    sent(core, one)
    core.delivered(one, 0)
    core.begin_barrier()
    core.view(start())
    assert core.waits_for_barrier


def test_deliveries_are_held_while_their_shard_is_sealing_and_freed_when_it_is_aborted() -> None:
    core = settling()
    one, other = box("s0", 1), box("s1", 2, hash_key=HALF)
    sent(core, one, other)
    core.delivered(one, 0)
    core.delivered(other, 0)
    assert core.settle(sealing(), core.begin_barrier()) == [(other, 0)]
    late = box("s0", 3)
    core.enqueue(late)
    assert core.take_sendable(10) == []
    aborted = after(sealing(), {"type": ABORT, "reshard": "r"})
    assert core.settle(aborted, core.begin_barrier()) == [(one, 0)]
    assert core.take_sendable(10) == [late]


def test_void_records_are_sent_again_to_the_children_before_newer_ones() -> None:
    core = settling()
    one, two = box("s0", 1), Box("s0", [Rec(2, 0), Rec(3, QUARTER)])
    sent(core, one, two)
    core.delivered(one, 4)
    core.delivered(two, 6)
    assert core.settle(split(5), core.begin_barrier()) == [(one, 4)]
    assert core.void_records == 2
    newer = box("s2", 4)
    core.enqueue(newer)
    assert seqs(core.take_sendable(10)) == [("s2", [2]), ("s2", [4]), ("s3", [3])]


def test_what_waits_for_a_sealed_shard_goes_to_its_children() -> None:
    core = settling()
    sent(core, first := box("s0", 1))
    core.enqueue(box("s0", 2))
    core.view(sealing())
    core.enqueue(box("s0", 3))
    core.view(split(5))
    assert core.take_sendable(10) == [], "the parent is not settled: its first is under way"
    core.delivered(first, 0)
    core.settle(split(5), core.begin_barrier())
    assert seqs(core.take_sendable(10)) == [("s2", [2, 3])]


def test_a_child_takes_nothing_before_all_its_parents_are_settled() -> None:
    core = settling()
    one, two, three = box("s0", 1), box("s1", 2, hash_key=HALF), box("s0", 3)
    sent(core, one, three, two)
    core.delivered(one, 9)
    core.delivered(three, 10)
    core.settle(merged(5, 5), core.begin_barrier())
    core.enqueue(box("s4", 4))
    assert core.take_sendable(10) == []
    assert [record.seq for record in core.orphans] == [1, 3]
    assert core.lowest_seq() == 1
    core.delivered(two, 7)
    core.settle(merged(5, 5), core.begin_barrier())
    assert seqs(core.take_sendable(10)) == [("s4", [1, 2, 3]), ("s4", [4])], "sorted by sequence over both parents"


def test_a_grandchild_waits_for_its_grandparent() -> None:
    core = settling()
    first = box("s0", 1)
    sent(core, first)
    deep = prepared(split(5), "d", ["s2"], Shard("s5", 0, 10, "t", 0), Shard("s6", 10, QUARTER, "t", 5))
    deep = after(deep, {"type": COMMIT, "reshard": "d", "seals": {"s2": 8}})
    core.view(deep)
    core.enqueue(box("s5", 2))
    assert core.take_sendable(10) == []
    core.delivered(first, 6)
    core.settle(deep, core.begin_barrier())
    assert seqs(core.take_sendable(10)) == [("s5", [1]), ("s5", [2])]


def test_unknown_outcomes_are_sent_again_in_order_when_the_client_failed() -> None:
    core = settling()
    one, two, three, four = (box("s0", seq) for seq in range(1, 5))
    sent(core, one, two, three)
    core.enqueue(four)
    core.delivered(one, 0)
    assert core.client_failed() == 2
    assert core.under_way == 0
    assert core.take_sendable(10) == [two, three, four]
    core.delivered(two, 5)
    core.delivered(two, 6)  # a report that comes twice changes nothing
    assert core.settle(start(), core.begin_barrier()) == [(one, 0), (two, 5)]


def test_unknown_outcomes_go_to_the_children_when_the_client_failed_after_the_seal() -> None:
    core = settling()
    one, two = box("s0", 1), box("s0", 2)
    sent(core, one, two)
    core.delivered(one, 3)
    core.view(split(5))
    core.client_failed()
    assert core.settle(split(5), core.begin_barrier()) == [(one, 3)]
    assert seqs(core.take_sendable(10)) == [("s2", [2])]


def test_a_gap_stops_the_producer_when_the_client_reordered() -> None:
    core = settling()
    one, two = box("s0", 1), box("s0", 2)
    sent(core, one, two)
    core.delivered(two, 0)
    with pytest.raises(InvariantError, match="gapless"):
        core.client_failed()


def test_a_parcel_for_a_sealed_shard_is_refused() -> None:
    core = settling()
    core.view(split(5))
    with pytest.raises(InvariantError, match="sealed"):
        core.enqueue(box("s0", 1))


def test_no_more_than_the_limit_is_under_way_in_a_shard() -> None:
    core = settling()
    boxes = [box("s0", seq) for seq in range(5)]
    for each in boxes:
        core.enqueue(each)
    assert core.take_sendable(2) == boxes[:2]
    assert core.take_sendable(2) == []
    core.delivered(boxes[0], 0)
    core.settle(start(), core.begin_barrier())
    assert core.take_sendable(2) == boxes[2:3]


def test_a_discarded_parcel_is_no_longer_under_way() -> None:
    core = settling()
    one, two = box("s0", 1), box("s0", 2)
    sent(core, one, two)
    assert core.discard(one)
    assert not core.discard(one)
    assert core.lowest_seq() == 2


def test_giving_up_hands_back_lanes_and_orphans() -> None:
    core = settling()
    one, two = box("s0", 1), box("s1", 2, hash_key=HALF)
    sent(core, one, two)
    core.enqueue(box("s1", 3, hash_key=HALF))
    core.delivered(one, 9)
    core.settle(merged(5, 5), core.begin_barrier())
    assert sorted(seq for each in core.drain() for seq in each.seqs) == [1, 2, 3]
    assert core.idle


def test_what_expires_takes_along_what_waits_behind_it_and_nothing_of_another_shard() -> None:
    settling = Settling(start(), lambda shard, records: [Box(shard, list(records))])
    under_way, first, old, young, other = box("s0", 1), box("s0", 2), box("s0", 3), box("s0", 4), box("s1", 5, hash_key=HALF)
    settling.enqueue(under_way)
    settling.take_sendable(1)
    for parcel in (first, old, young, other):
        settling.enqueue(parcel)
    assert settling.expire(lambda parcel: parcel is under_way, alone=False) == ([], [])
    assert settling.expire(lambda parcel: parcel is old, alone=False) == ([old], [young])
    settling.delivered(under_way, 0)
    settling.settle(start(), settling.begin_barrier())
    assert settling.take_sendable(9) == [first, other]


def test_what_expires_alone_leaves_the_others() -> None:
    settling = Settling(start(), lambda shard, records: [Box(shard, list(records))])
    old, young = box("s0", 1), box("s0", 2)
    settling.enqueue(old)
    settling.enqueue(young)
    assert settling.expire(lambda parcel: parcel is old, alone=True) == ([old], [])
    assert settling.take_sendable(9) == [young]


def test_a_parcel_that_is_held_back_holds_back_its_shard_and_no_other() -> None:
    settling = Settling(start(), lambda shard, records: [Box(shard, list(records))])
    held, behind, other = box("s0", 1), box("s0", 2), box("s1", 3, hash_key=HALF)
    for parcel in (held, behind, other):
        settling.enqueue(parcel)
    assert settling.take_sendable(9, lambda parcel: parcel is not held) == [other]
    assert settling.take_sendable(9) == [held, behind]
