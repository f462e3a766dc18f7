"""Conditions of `--where`."""

from __future__ import annotations

import pytest

from pipeline.errors import ConfigError
from pipeline.replay.where import parse_where

ABOUT = {"error": "ValueError", "attempts": 4, "id": None, "value": {"pilot": {"age": 40}, "ok": True}}


@pytest.mark.parametrize(
    ("text", "holds"),
    [
        (None, True),
        ("error = 'ValueError'", True),
        ("error != 'ValueError'", False),
        ("attempts >= 4 and error='ValueError'", True),
        ("attempts > 4 AND error='ValueError'", False),
        ("value.pilot.age < 40.5", True),
        ("value.ok = true", True),
        ("id = null", True),
        ("value.pilot.name = null", False),
        ("error > 3", False),
        ("error = 'and'", False),
    ],
)
def test_conditions_compare_fields_and_what_is_absent_does_not_match(text: str | None, holds: bool) -> None:
    assert parse_where(text)(ABOUT) is holds


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("error ~ 'x'", "character 1"),
        ("a = 1 or b = 2", "expected `and` at character 7"),
        ("a = 'x", "character 1"),
        ("a=" * 3000, "longer"),
    ],
)
def test_what_is_not_understood_is_refused_with_its_place(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_where(text)
