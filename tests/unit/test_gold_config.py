"""What headrace.yml may say of gold tables, and what is refused when it is loaded."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from jobs.golds.aggregate import two_phases
from pipeline.config import Config, load_config
from pipeline.errors import ConfigError

WINDOW = {"on": "at", "every": "1 hour", "watermark": "2 hours", "aggregate": {"n": "count(*)"}}
JOIN = {"on": ["item"], "times": {"bronze.a": "at", "bronze.b": "paid_at"}, "after": "1 hour", "watermark": "10 minutes"}


def load(folder: Path, name: str, table: dict[str, Any]) -> Config:
    others = {"bronze.a": {"from": "a"}, "bronze.b": {"from": "b"}, "silver.a": {"from": "bronze.a", "merge": {"keys": ["id"]}}}
    streams = {stream: {"schema": "x.avsc"} for stream in "ab"}
    profiles = {"p": {"bootstrap": "k:1", "registry": "http://r:1"}}
    file = folder / "headrace.yml"
    file.write_text(yaml.safe_dump({"profile": "p", "profiles": profiles, "streams": streams, "tables": others | {name: table}}))
    return load_config(file, {})


def test_windows_and_joins_are_read_with_their_durations(tmp_path: Path) -> None:
    window = load(tmp_path, "gold.x", {"from": "bronze.a", "window": WINDOW | {"slide": "15 minutes"}}).table("gold.x").window
    assert window is not None
    assert (window.every, window.slide, window.lateness) == (timedelta(hours=1), timedelta(minutes=15), timedelta(hours=2))
    join = load(tmp_path, "gold.x", {"from": ["bronze.a", "bronze.b"], "join": JOIN}).table("gold.x").join
    assert join is not None
    assert (join.before, join.after, join.kind) == (None, timedelta(hours=1), "inner")


def without(options: dict[str, Any], *names: str) -> dict[str, Any]:
    return {key: value for key, value in options.items() if key not in names}


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ({"from": "bronze.a", "window": without(WINDOW, "watermark")}, "watermark: is missing"),
        ({"from": "bronze.a", "window": without(WINDOW, "every")}, "give `every:`"),
        ({"from": "bronze.a", "window": WINDOW | {"gap": "1 hour"}}, "give `every:`"),
        ({"from": "bronze.a", "window": WINDOW | {"every": "an hour"}}, "expected a duration such as"),
        ({"from": "bronze.a", "window": WINDOW | {"every": "0 seconds"}}, "every: expected more than 0 seconds"),
        ({"from": "bronze.a", "window": WINDOW | {"slide": "2 hours"}}, "may not be longer"),
        ({"from": "bronze.a", "window": WINDOW | {"slide": "1 second"}}, "more than 1,000 windows"),
        ({"from": "bronze.a", "window": WINDOW | {"aggregate": {"window_start": "count(*)"}}}, "has a column of this name"),
        ({"from": "bronze.a", "window": WINDOW | {"aggregate": {"a b": "count(*)"}}}, "cannot be a column"),
        ({"from": "bronze.a", "window": WINDOW | {"aggregates": {}}}, "is not an option here"),
        ({"from": "silver.a", "window": without(WINDOW, "every") | {"gap": "1 hour"}}, "sessions are followed over bronze only"),
        ({"from": ["bronze.a", "bronze.b"], "window": WINDOW}, "over one bronze or silver table"),
        ({"from": "bronze.a", "window": WINDOW, "sql": "x.sql"}, "sql and window: a gold table has one of"),
        ({"from": "bronze.a", "window": WINDOW, "mode": "refresh"}, "mode and keys: only for sql and python"),
        ({"from": ["bronze.a", "bronze.b"], "join": without(JOIN, "after")}, "before: and after: are missing"),
        ({"from": ["bronze.a", "bronze.b"], "join": without(JOIN, "watermark")}, "watermark: is missing"),
        ({"from": ["bronze.a", "silver.a"], "join": JOIN}, "over two different bronze tables"),
        ({"from": ["bronze.a", "bronze.b"], "join": JOIN | {"times": {"bronze.a": "at"}}}, "event time's column of bronze.a and"),
        ({"from": "silver.a", "sql": "x.sql", "mode": "incremental"}, "keys: is missing"),
        ({"from": "silver.a", "sql": "x.sql", "keys": ["id"]}, "keys: goes with `mode: incremental`"),
        ({"from": "silver.a", "python": "nothing"}, "expected module:function"),
        ({"from": "silver.a"}, "needs sql: and the file of its query"),
    ],
)
def test_a_gold_table_that_cannot_work_is_refused_with_table_option_and_reason(
    tmp_path: Path, table: dict[str, Any], said: str
) -> None:
    with pytest.raises(ConfigError, match=said) as raised:
        load(tmp_path, "gold.x", table)
    assert "tables.gold.x" in str(raised.value)


def test_names_of_late_tables_are_taken_and_other_layers_have_no_windows(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="are taken for the late rows"):
        load(tmp_path, "gold.x__late", {"from": "bronze.a", "window": WINDOW})
    with pytest.raises(ConfigError, match="window: only gold tables have this"):
        load(tmp_path, "silver.x", {"from": "bronze.a", "merge": {"keys": ["id"]}, "window": WINDOW})


@pytest.mark.parametrize(
    "expression", ["count(DISTINCT x)", "sum(a) / sum(b)", "percentile(x, 0.5)", "count(*) FILTER (WHERE a)", "1", "sum(a) + (1)"]
)
def test_an_aggregate_that_parts_cannot_give_is_refused(expression: str) -> None:
    with pytest.raises(ConfigError, match=r"tables\.t: .* cannot be put together from parts"):
        two_phases("tables.t", expression)


@pytest.mark.parametrize("expression", ["count(*)", "SUM( coalesce(a, ')') )", "avg(a + b)", "max(a)", "bool_or(a > 1)"])
def test_an_aggregate_that_parts_give_is_taken(expression: str) -> None:
    assert two_phases("tables.t", expression).parts
