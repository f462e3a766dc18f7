"""The Space-Saving sketch against exact counts."""

from __future__ import annotations

from collections import Counter
from itertools import combinations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.model.sketch import SpaceSaving, gini

property_settings = settings(max_examples=300, deadline=None, database=None, print_blob=True)
ADDED = st.lists(st.tuples(st.integers(0, 30), st.integers(1, 9)), max_size=400)
SLACK = 1e-6


@property_settings
@given(ADDED, st.integers(1, 12))
def test_every_count_is_within_its_bounds_and_every_heavy_key_is_tracked(added: list[tuple[int, int]], capacity: int) -> None:
    sketch: SpaceSaving[int] = SpaceSaving(capacity)
    exact: Counter[int] = Counter()
    for key, weight in added:
        sketch.add(key, weight)
        exact[key] += weight
    bound = exact.total() / capacity
    tracked = {heavy.key: heavy for heavy in sketch.top(capacity)}
    assert sketch.total == exact.total()
    assert len(tracked) <= capacity
    for key in range(31):
        heavy = sketch.weight(key)
        assert heavy.count - heavy.error <= exact[key] <= heavy.count
        assert heavy.error <= bound + SLACK
        assert key in tracked or exact[key] <= bound + SLACK
    counts = [heavy.count for heavy in sketch.top(capacity)]
    assert counts == sorted(counts, reverse=True)


@property_settings
@given(ADDED, ADDED, st.integers(1, 12))
def test_the_bounds_hold_for_scaled_weights(
    before: list[tuple[int, int]], after: list[tuple[int, int]], capacity: int
) -> None:
    sketch: SpaceSaving[int] = SpaceSaving(capacity)
    exact = dict.fromkeys(range(31), 0.0)
    for key, weight in before:
        sketch.add(key, weight)
        exact[key] += weight / 2
    sketch.scale(0.5)
    for key, weight in after:
        sketch.add(key, weight)
        exact[key] += weight
    for heavy in sketch.top(capacity):
        assert heavy.count - heavy.error - SLACK <= exact[heavy.key] <= heavy.count + SLACK


def test_a_sketch_has_a_counter() -> None:
    with pytest.raises(ValueError, match="counter"):
        SpaceSaving(0)


@property_settings
@given(st.lists(st.floats(0, 1e6), max_size=20))
def test_gini_is_half_the_relative_mean_difference(shares: list[float]) -> None:
    differences = 2 * sum(abs(a - b) for a, b in combinations(shares, 2))
    expected = differences / (2 * len(shares) * sum(shares)) if sum(shares) > 0 else 0.0
    assert gini(shares) == pytest.approx(expected, abs=1e-6)
