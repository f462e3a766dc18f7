"""Crash points as they are named; that a run reaches each is tests/spark/test_crash_points.py's."""

from __future__ import annotations

import pytest

from jobs import crash
from pipeline.errors import ConfigError


def test_a_point_is_meant_at_its_first_time_or_at_the_one_that_is_given() -> None:
    assert crash.parse("bronze.after_commit") == ("bronze.after_commit", 1)
    assert crash.parse("silver.before_write:3") == ("silver.before_write", 3)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("bronze.nowhere", "no crash point 'bronze.nowhere'; there are: bronze.table_made, "),
        ("bronze.planned:0", "'0' is not how often bronze.planned is reached"),
        ("bronze.planned:often", "'often' is not how often"),
    ],
)
def test_a_point_that_there_is_not_is_refused_with_those_that_there_are(text: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        crash.parse(text)
