"""Where a source stands: kept as JSON in commits, and whether one position follows another."""

from __future__ import annotations

import json

import pytest

from jobs.golds.keyed import _replaced
from jobs.golds.sources import Position

AT_FIVE = Position(1, "table", {"orders": {0: 5, 1: 7}})


def test_a_position_is_the_same_after_it_was_written_into_a_commit_and_read_back() -> None:
    written = json.loads(json.dumps(AT_FIVE.to_json()))
    assert written == AT_FIVE.to_json()
    assert Position.from_json(written) == AT_FIVE


@pytest.mark.parametrize(
    ("later", "follows"),
    [
        (Position(2, "table", {"orders": {0: 5, 1: 9, 2: 1}}), True),
        (Position(2, "table", {"orders": {0: 4, 1: 9}}), False),  # restored to an older version
        (Position(2, "table", {"orders": {0: 9}}), False),
        (Position(0, "table", AT_FIVE.next), False),
        (Position(2, "another", AT_FIVE.next), False),  # made anew
    ],
)
def test_a_position_follows_another_of_the_same_table_that_is_not_ahead_of_it(later: Position, follows: bool) -> None:
    assert later.follows(AT_FIVE) is follows


@pytest.mark.parametrize(
    ("text", "name", "expected"),
    [
        ("date_trunc('at', at)", "at", "date_trunc('at', (x))"),
        ("f(o.at, o.at2, n.o.at)", "o.at", "f((x), o.at2, n.o.at)"),
        ("at(at, `at`)", "at", "at((x), `at`)"),
    ],
)
def test_a_column_is_replaced_as_a_whole_name_outside_of_quotes(text: str, name: str, expected: str) -> None:
    assert _replaced(text, name, "(x)") == expected
