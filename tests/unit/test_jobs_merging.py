"""The pure parts of silver: which files keys can lie in, and what is refused."""

from __future__ import annotations

import random
from datetime import UTC, datetime
from decimal import Decimal
from itertools import pairwise
from typing import Any

import pytest

from jobs.merging.plan import MergePlan
from jobs.merging.pruning import key_ranges
from pipeline.config import Merge
from pipeline.errors import ConfigError, TableError

JANUARY, FEBRUARY, MAY = (datetime(2026, month, 1, tzinfo=UTC) for month in (1, 2, 5))


def test_the_widest_gaps_between_keys_are_left_out() -> None:
    assert key_ranges([7, 1, 2, 100, 101, 50], ranges_max=3) == [(1, 7), (50, 50), (100, 101)]
    assert key_ranges([7, 1], ranges_max=1) == [(1, 7)]
    assert key_ranges([]) == []


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (["order-0001", "order-0002", "order-9000"], [("order-0001", "order-0002"), ("order-9000", "order-9000")]),
        (["a", "ab", "日", "本"], [("a", "ab"), ("日", "本")]),
        ([JANUARY, FEBRUARY, MAY], [(JANUARY, FEBRUARY), (MAY, MAY)]),
        ([JANUARY.date(), FEBRUARY.date(), MAY.date()], [(JANUARY.date(), FEBRUARY.date()), (MAY.date(), MAY.date())]),
        ([Decimal("1.5"), Decimal("1.6"), Decimal(4)], [(Decimal("1.5"), Decimal("1.6")), (Decimal(4), Decimal(4))]),
    ],
)
def test_keys_of_every_type_that_files_have_statistics_of_are_cut(values: list[Any], expected: list[Any]) -> None:
    assert key_ranges(values, ranges_max=2) == expected


@pytest.mark.parametrize("seed", range(20))
def test_every_key_is_in_one_range_and_ranges_do_not_meet(seed: int) -> None:
    chance = random.Random(seed)
    numbers = [chance.choice([chance.randrange(100), chance.randrange(10**9)]) for _ in range(300)]
    for values in (numbers, [f"key-{n:x}" for n in numbers]):
        ranges = key_ranges(values)
        assert len(ranges) <= 32
        assert all(sum(low <= value <= high for low, high in ranges) == 1 for value in values)
        assert all(before[1] < after[0] for before, after in pairwise(ranges))


def plan(dedup: str = "off", **merge: Any) -> MergePlan:
    return MergePlan("silver.x", Merge(**{"keys": ["id"], **merge}), None, dedup, None)


COLUMNS = {"id": "string", "at": "int", "tags": "array<string>", "_meta": "struct<a:int>"}


@pytest.mark.parametrize(
    ("merge", "columns", "said"),
    [
        ({"keys": ["id", "nothing"]}, {}, r"silver\.x\.merge\.keys: there is no column 'nothing'; there are: id, at, tags"),
        ({"sequence_by": "nothing"}, {}, r"merge\.sequence_by: there is no column 'nothing'"),
        ({"keys": ["tags"]}, {}, r"merge\.keys: the column 'tags' is array<string>"),
        ({"sequence_by": "tags"}, {}, r"merge\.sequence_by: the column 'tags'"),
        ({"scd": 2}, {"valid_to": "date"}, r"merge\.scd: 2 makes columns valid_to, which the records have too"),
    ],
)
def test_columns_that_a_merge_cannot_have_are_named(merge: dict[str, Any], columns: dict[str, str], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        plan(**merge).check_columns(COLUMNS | columns)


def test_ignore_null_updates_without_a_column_that_could_be_null_is_refused() -> None:
    with pytest.raises(ConfigError, match="no columns but keys and sequence"):
        plan(sequence_by="at", ignore_null_updates=True).check_columns({"id": "string", "at": "int", "_meta": "struct<a:int>"})


def test_a_merge_that_fits_its_columns_is_taken() -> None:
    plan(keys=["id", "at"], scd=1).check_columns(COLUMNS | {"valid_to": "date"})
    plan(sequence_by="at", scd=2).check_columns(COLUMNS)


def test_files_are_told_apart_by_keys_with_statistics_only() -> None:
    columns = {"a": "double", "b": "decimal(10,2)", "c": "string", "d": "boolean"}
    assert plan(keys=["a", "b", "c", "d"]).prunable(columns) == ["b", "c"]


def test_rows_made_with_other_settings_are_refused_with_what_changed() -> None:
    kept = plan(scd=1).settings()
    plan(scd=1).check_settings(kept)
    with pytest.raises(TableError, match=r"silver\.x\.merge changed .*: scd \(was 1, is 2\)"):
        plan(scd=2).check_settings(kept)
    with pytest.raises(TableError, match=r"dedup \(was 'off', is 'exact'\)"):
        plan("exact").check_settings(kept)
    with pytest.raises(TableError, match="another version of Headrace"):
        plan().check_settings(None)
