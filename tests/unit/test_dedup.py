"""Windows of explicit dedup ids."""

from __future__ import annotations

import pytest

from pipeline.model.dedup import IdWindow, Sight

PLACE = ("t", 0)


def sight(at_ms: int, offset: int = 0, index: int = 0) -> Sight:
    return Sight(at_ms, PLACE, offset, index)


@pytest.mark.parametrize(("later_ms", "new"), [(0, False), (1_000, False), (1_001, True)])
def test_an_id_is_a_duplicate_for_a_window_from_its_first_sight(later_ms: int, new: bool) -> None:
    window = IdWindow(1_000)
    assert window.is_new("a", sight(5_000))
    assert window.is_new("a", sight(5_000 + later_ms, offset=1)) is new


def test_duplicates_do_not_make_the_window_longer() -> None:
    window = IdWindow(1_000)
    assert [window.is_new("a", sight(at, offset=at)) for at in (0, 900, 1_800)] == [True, False, True]


def test_a_record_read_again_is_not_its_own_duplicate() -> None:
    window = IdWindow(1_000)
    assert window.is_new("a", sight(0, 7, 3))
    assert window.is_new("a", sight(0, 7, 3))
    assert not window.is_new("a", sight(0, 7, 4))


def test_a_producer_whose_clock_is_behind_makes_no_new_sight() -> None:
    window = IdWindow(1_000)
    window.is_new("a", sight(5_000))
    assert not window.is_new("a", sight(4_000, offset=1))


def test_ids_leave_with_the_window_and_at_the_bound() -> None:
    window = IdWindow(1_000, ids_max=100)
    for n in range(500):
        window.is_new(f"id{n}", sight(n * 100, offset=n))
    assert len(window) <= 12
    assert window.forgotten == 0
    for n in range(500):
        window.is_new(f"other{n}", sight(100_000, offset=1_000 + n))
    assert len(window) == 100
    assert window.forgotten > 0
    assert window.is_new("other0", sight(100_000, offset=2_000)), "the oldest was forgotten"
