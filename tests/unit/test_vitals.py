"""Burrow's rules, and handlers that hang."""

from __future__ import annotations

import pytest

from pipeline.consume.vitals import SAMPLE_S, SAMPLES, Sample, Vitals, judge

PLACE = ("t", 0)


def window(positions: list[int], lags: list[int]) -> list[Sample]:
    return [Sample(offset, 0, lag) for offset, lag in zip(positions, lags, strict=True)]


RISING = list(range(100, 100 + SAMPLES))


@pytest.mark.parametrize(
    ("samples", "verdict"),
    [
        (window([5] * SAMPLES, [3] * SAMPLES), "stands at 5"),
        (window([5] * SAMPLES, [0] + [3] * (SAMPLES - 1)), None),
        (window([5] * (SAMPLES - 1), [3] * (SAMPLES - 1)), None),
        (window(RISING, list(range(1, SAMPLES + 1))), "falls behind"),
        (window(RISING, [9] * SAMPLES), None),
        (window(RISING, [*range(1, SAMPLES), 2]), None),
    ],
)
def test_a_partition_stalls_falls_behind_or_is_well(samples: list[Sample], verdict: str | None) -> None:
    found = judge(samples)
    assert found is None if verdict is None else verdict in str(found)


def test_progress_inside_an_aggregate_is_no_stall() -> None:
    assert judge([Sample(5, index, 3) for index in range(SAMPLES)]) is None


def test_a_hanging_handler_a_silent_caller_and_a_closed_gate_are_complaints() -> None:
    vitals = Vitals(60.0, polled_at=0.0)
    assert vitals.problems(59.0, 59.0, {PLACE: 59.0}) == []
    found = vitals.problems(61.0, 62.0, {PLACE: 63.0})
    assert [word for problem in found for word in ("handler", "no poll", "parents") if word in problem] == [
        "handler", "no poll", "parents"
    ]  # fmt: skip


def test_samples_are_taken_at_their_interval_and_forgotten_with_their_partition() -> None:
    vitals = Vitals(60.0, polled_at=0.0)
    for turn in range(SAMPLES):
        now = (turn + 1) * SAMPLE_S
        assert vitals.due(now)
        vitals.sample(now, {PLACE: Sample(5, 0, 3)})
        assert not vitals.due(now + SAMPLE_S / 2)
    assert len(vitals.problems(vitals.polled_at, 0.0, {})) == 1
    vitals.sample(1_000.0, {})
    assert vitals.problems(vitals.polled_at, 0.0, {}) == []
