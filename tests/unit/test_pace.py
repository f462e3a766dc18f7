"""``--rate``: so many records a second at most."""

from __future__ import annotations

import pytest

from pipeline.replay import pace
from pipeline.replay.pace import Pace


class Clock:
    """Time that passes only where somebody sleeps, or by hand."""

    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(pace, "time", made)
    return made


def test_records_go_at_the_rate_and_no_faster(clock: Clock) -> None:
    limited = Pace(50.0)
    for _ in range(101):
        limited.step()
    assert clock.now == pytest.approx(102.0)


def test_time_that_was_not_used_is_not_made_up_for_by_a_burst(clock: Clock) -> None:
    limited = Pace(10.0)
    limited.step()
    clock.now += 60
    for _ in range(11):
        limited.step()
    assert clock.now == pytest.approx(161.0)


def test_without_a_rate_nobody_waits(clock: Clock) -> None:
    unlimited = Pace(None)
    for _ in range(1000):
        unlimited.step()
    assert clock.now == 100.0
