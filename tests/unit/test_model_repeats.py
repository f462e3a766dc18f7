"""Marks: the cases that a maximum, or a number a shard, gets wrong."""

from __future__ import annotations

from pipeline.model.keys import HASH_SPACE
from pipeline.model.repeats import NO_MARK, MarkRange, Marks, Verdict, is_repeat

HALF = HASH_SPACE // 2


def test_a_merged_child_loses_nothing_when_one_parent_lagged_behind() -> None:
    """Parent one was fed up to 9, parent two up to 2: 3 to 8 of parent two's range come by the child, and are no repeats."""
    marks = Marks()
    marks.accept("p", 9, 0, HALF)
    marks.accept("p", 2, HALF, HASH_SPACE)
    verdict, ranges = marks.judge("p", 3, 8, 0, HASH_SPACE)
    assert verdict is Verdict.PARTLY
    assert [is_repeat(ranges, hashed, 3) for hashed in (0, HALF - 1, HALF, HASH_SPACE - 1)] == [True, True, False, False]
    assert max(r.seq for r in ranges) >= 8, "a maximum over the parents would drop them all"
    marks.accept("p", 8, 0, HASH_SPACE)
    assert marks.judge("p", 9, 9, 0, HALF)[0] is Verdict.REPEAT
    assert marks.judge("p", 9, 9, HALF, HASH_SPACE)[0] is Verdict.ACCEPT


def test_children_know_their_parent_s_repeats_when_it_was_split() -> None:
    marks = Marks()
    marks.accept("p", 5, 0, HASH_SPACE)
    for low, high in ((0, HALF), (HALF, HASH_SPACE)):
        assert marks.judge("p", 4, 5, low, high)[0] is Verdict.REPEAT
        assert marks.judge("p", 5, 6, low, high)[0] is Verdict.PARTLY
        assert marks.judge("p", 6, 7, low, high)[0] is Verdict.ACCEPT


def test_an_unknown_producer_has_no_repeats() -> None:
    assert Marks().judge("p", 0, 9, 3, 7) == (Verdict.ACCEPT, [MarkRange(3, 7, NO_MARK)])


def test_producers_do_not_know_of_each_other() -> None:
    marks = Marks()
    marks.accept("p", 5, 0, HASH_SPACE)
    assert marks.judge("q", 0, 5, 0, HASH_SPACE)[0] is Verdict.ACCEPT


def test_an_older_sequence_never_lowers_a_mark() -> None:
    marks = Marks()
    marks.accept("p", 9, 0, HASH_SPACE)
    marks.accept("p", 2, 0, HALF)
    assert marks.to_json()["p"]["ranges"] == [["0", str(HASH_SPACE), 9]]


def test_a_hash_key_outside_the_ranges_is_no_repeat() -> None:
    assert not is_repeat([MarkRange(0, 10, 99)], 10, 5)


def test_silent_producers_are_forgotten_by_their_own_stamps_time() -> None:
    marks = Marks()
    marks.accept("old", 1, 0, HASH_SPACE, seen_at_ms=100)
    marks.accept("new", 1, 0, HASH_SPACE, seen_at_ms=200)
    marks.accept("new", 2, 0, HASH_SPACE, seen_at_ms=150)
    moved = Marks.from_json(marks.to_json())
    assert moved.prune(200) == 1
    assert moved.to_json().keys() == {"new"}
    assert len(moved) == 1
    assert len(marks) == 2


def test_taking_over_forgets_what_was_known_of_the_range() -> None:
    """After a rewind the range is read anew, by whoever has it."""
    marks = Marks()
    marks.accept("p", 9, 0, HASH_SPACE)
    marks.replace(0, HALF, Marks())
    assert marks.judge("p", 0, 9, 0, HALF)[0] is Verdict.ACCEPT
    assert marks.judge("p", 0, 9, HALF, HASH_SPACE)[0] is Verdict.REPEAT
