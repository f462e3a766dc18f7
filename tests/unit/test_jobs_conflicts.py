"""Doing work again after another writer of the table committed first."""

from __future__ import annotations

import pytest

from jobs.conflicts import TRIES_MAX, again_on_conflict


class Work:
    def __init__(self, *errors: str) -> None:
        self.errors, self.calls = list(errors), 0

    def __call__(self) -> None:
        self.calls += 1
        if self.errors:
            raise RuntimeError(self.errors.pop(0))


def test_a_conflict_is_answered_by_doing_it_again() -> None:
    work = Work("[DELTA_CONCURRENT_APPEND] files were added", "[DELTA_CONCURRENT_DELETE_READ] a file was deleted")
    again_on_conflict(work, "silver.orders")
    assert work.calls == 3


def test_other_errors_and_conflicts_without_end_are_raised_as_they_are() -> None:
    for work, calls in ((Work("out of space"), 1), (Work(*["DELTA_CONCURRENT_APPEND"] * 99), TRIES_MAX)):
        with pytest.raises(RuntimeError):
            again_on_conflict(work, "silver.orders")
        assert work.calls == calls
