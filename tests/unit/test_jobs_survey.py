"""What the survey rules about messages from their stamps: pure, without Spark."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from jobs.survey import PRODUCER_RETENTION_MS, Fate, Plan, Seen, plan, with_claims
from pipeline.model.keys import HASH_SPACE
from pipeline.model.repeats import Marks
from pipeline.model.shards import COMMIT, CREATED, PREPARE, Shard, ShardMap, shard_event
from pipeline.model.stamp import Stamp, encode_stamp

PREFIX = b"\x00\x00\x00\x00\x07"
NOW_MS = 1_700_000_000_000


def shards(*, prepared: bool = False, committed: bool = False) -> ShardMap:
    """One shard s0 on partition 0; split at END offset 10 into s1 (same partition) and s2."""
    half = HASH_SPACE // 2
    events: list[dict[str, Any]] = [
        {
            "type": CREATED, "hash": "xxh64-42", "subject": "t-value", "ordering": "strict",
            "shards": [shard_event(Shard("s0", 0, HASH_SPACE, "t", 0))],
        },
        {
            "type": PREPARE, "reshard": "r", "parents": ["s0"], "scan_from": {"s0": 8},
            "children": [shard_event(Shard("s1", 0, half, "t", 0)), shard_event(Shard("s2", half, HASH_SPACE, "t", 1))],
        },
        {"type": COMMIT, "reshard": "r", "seals": {"s0": 10}},
    ]  # fmt: skip
    found = ShardMap()
    for offset, event in enumerate(events[: 3 if committed else 2 if prepared else 1]):
        found = found.apply(event, offset)
    return found


def seen(offset: int, first: int, last: int, shard: str = "s0", **changes: Any) -> Seen:
    stamp = Stamp(shard, changes.pop("producer", "p"), 1, first, last, -1, last - first + 1, changes.pop("at", NOW_MS))
    return replace(Seen("t", changes.pop("partition", 0), offset, encode_stamp(stamp), False, 100, PREFIX), **changes)


def ruled(found: Plan) -> dict[int, Fate]:
    return {one.offset: one.fate for one in found.rulings}


def judge(*messages: Seen, shard_map: ShardMap | None = None, marks: Marks | None = None, foreign: bool = False) -> Plan:
    return plan(messages, shard_map or shards(), marks or Marks(), accept_foreign=foreign)


def test_new_messages_are_accepted_without_a_ruling() -> None:
    found = judge(seen(0, 0, 4), seen(1, 5, 9))
    assert (found.rulings, found.schema_ids, found.stamped, found.partly) == ([], {7}, 10, 0)
    assert (found.counts.messages, found.counts.bytes) == (2, 200)


def test_messages_are_judged_by_offset_whatever_order_they_come_in() -> None:
    assert ruled(judge(seen(1, 0, 4), seen(0, 0, 4))) == {1: Fate.SKIP}


def test_the_marks_that_came_in_are_not_changed() -> None:
    marks = Marks()
    after = judge(seen(0, 0, 4), marks=marks).marks
    assert marks == Marks()
    assert ruled(judge(seen(0, 0, 4), marks=after)) == {0: Fate.SKIP}


def test_a_partly_repeated_message_is_judged_record_by_record() -> None:
    found = judge(seen(0, 0, 4), seen(1, 3, 7))
    assert ruled(found) == {1: Fate.PARTLY}
    assert [(m.low, m.high, m.seq) for m in found.rulings[0].marks] == [(0, HASH_SPACE, 4)]
    assert (found.stamped, found.partly, found.counts.repeats) == (10, 1, 0)


def test_a_message_at_or_behind_the_seal_of_its_shard_is_void_and_leaves_no_mark() -> None:
    found = judge(seen(9, 0, 0), seen(10, 1, 1), seen(12, 2, 4), shard_map=shards(committed=True))
    assert ruled(found) == {10: Fate.SKIP, 12: Fate.SKIP}
    assert found.counts.voids == 4
    again = judge(seen(13, 1, 4, "s1"), shard_map=shards(committed=True), marks=found.marks)
    assert again.rulings == []


def test_a_pending_reshard_holds_what_may_stand_behind_its_seal_and_nothing_else() -> None:
    pending = shards(prepared=True)
    assert judge(seen(7, 0, 0), shard_map=pending).undecided == frozenset()
    assert judge(seen(7, 0, 0), seen(8, 1, 1), shard_map=pending).undecided == {"s0"}


def test_end_markers_make_no_rows_and_no_rejections() -> None:
    found = judge(Seen("t", 0, 3, None, True, 6, PREFIX))
    assert (ruled(found), found.counts.rejected) == ({3: Fate.SKIP}, 0)


def test_messages_that_cannot_be_placed_are_rejected_with_a_reason() -> None:
    found = judge(
        seen(0, 0, 0, stamp=b"\x07"), seen(1, 0, 0, "s9"), seen(2, 0, 0, partition=1), seen(3, 0, 0, prefix=b"\x01abcd"),
        seen(4, 1, 1, prefix=b"\x00\x00", value_bytes=2), Seen("t", 0, 5, None, False, 9, PREFIX),
    )  # fmt: skip
    reasons = {(one.offset, one.reason) for one in found.rulings if one.fate is Fate.REJECT}
    assert reasons == {
        (0, "stamp"), (1, "unknown_shard"), (2, "misplaced"), (3, "framing"), (4, "framing"), (5, "foreign"),
    }  # fmt: skip
    assert (found.counts.rejected, found.stamped, found.schema_ids) == (6, 0, set())


def test_foreign_messages_are_taken_where_the_stream_says_so() -> None:
    found = judge(Seen("t", 0, 5, None, False, 9, PREFIX), foreign=True)
    assert (found.rulings, found.counts.foreign, found.stamped) == ([], 1, 0)


def test_marks_of_producers_silent_for_a_week_go_by_the_stamps_own_time() -> None:
    marks = judge(seen(0, 0, 4, producer="old")).marks
    later = NOW_MS + PRODUCER_RETENTION_MS
    assert len(judge(seen(1, 0, 4, producer="new", at=later), marks=marks).marks) == 2
    assert len(judge(seen(1, 0, 4, producer="new", at=later + 1), marks=marks).marks) == 1


def test_messages_of_redrives_are_counted_unless_they_are_left_out() -> None:
    found = judge(seen(0, 0, 1, producer="redrive-1"), seen(1, 0, 1, producer="redrive-1"), seen(2, 0, 1, producer="p"))
    assert (found.redriven, found.partly, ruled(found)) == (1, 0, {1: Fate.SKIP})


def test_claims_of_accepted_messages_are_listed_and_ruled_by_what_the_store_held() -> None:
    found = judge(
        seen(0, 0, 0, is_claim=True, prefix=b'{"nam'),
        seen(1, 0, 0, is_claim=True, prefix=b'{"nam'),  # a repeat: nothing is fetched for it
        seen(2, 1, 1, is_claim=True, prefix=b'{"nam'),
        seen(3, 2, 2, is_claim=True, prefix=b'{"nam'),
        seen(4, 3, 3),
    )
    assert [(one.offset, one.records) for one in found.claims] == [(0, 1), (2, 1), (3, 1)]
    assert (found.schema_ids, found.stamped, ruled(found)) == ({7}, 4, {1: Fate.SKIP})
    first, second, third = found.claims
    told = with_claims(found, [replace(first, prefix=b"\x00\x00\x00\x00\x09"), replace(second, problem="gone"), third])
    reasons = {one.offset: (one.reason, one.detail) for one in told.rulings if one.fate is Fate.REJECT}
    assert reasons.keys() == {2, 3}
    assert reasons[2] == ("claim", "gone")
    assert reasons[3][0] == "framing"
    assert (told.schema_ids, told.stamped, told.counts.rejected) == ({7, 9}, 2, 2)
    assert (found.counts.rejected, found.stamped) == (0, 4)  # the plan that came in is as it was
