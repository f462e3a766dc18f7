"""``expect:`` and ``transform:`` in headrace.yml: what is taken, what is refused and why."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline.config import TableConfig, load_config
from pipeline.errors import ConfigError


def load(folder: Path, table: dict[str, Any], name: str = "silver.orders") -> TableConfig:
    merge = {"from": "bronze.orders", "merge": {"keys": ["item"]}} if name.startswith("silver") else {}
    source = {"from": "orders"} if name.startswith("bronze") else {}
    tables = {"bronze.orders": {"from": "orders"}} | {name: merge | source | table}
    file = folder / "headrace.yml"
    file.write_text(yaml.safe_dump({"streams": {"orders": {"schema": "o.avsc"}}, "tables": tables}))
    return load_config(file, {}).table(name)


def test_the_rule_of_the_design_is_taken_and_named_by_its_text(tmp_path: Path) -> None:
    (rule,) = load(tmp_path, {"expect": [{"rule": "dep_delay > -120", "on_fail": "quarantine"}]}).expect
    assert (rule.title, rule.check, rule.on_fail, rule.is_row_rule) == ("dep_delay > -120", "rule", "quarantine", True)


@pytest.mark.parametrize(
    ("entry", "title", "is_row_rule"),
    [
        ({"column": "a", "complete": True}, "a complete", True),
        ({"column": "a", "complete": 0.95}, "a complete 0.95", False),
        ({"column": ["a", "b"], "unique": "1h"}, "a, b unique 1h", True),
        ({"column": "a", "values": ["x", 2]}, "a values x, 2", True),
        ({"column": "a", "matches": "N[0-9]+"}, "a matches N[0-9]+", True),
        ({"column": "a", "between": [None, 5]}, "a between any and 5", True),
        ({"column": "a", "references": "reference.airlines.carrier"}, "a references reference.airlines.carrier", True),
        ({"column": "a", "exists": True}, "a exists", False),
        ({"column": "a", "type": "bigint"}, "a type bigint", False),
        ({"column": "a", "fresh_within": "2h"}, "a fresh_within 2h", False),
        ({"rows": [1, None]}, "rows 1 and any", False),
        ({"column": "a", "mean": [0, 10.5]}, "a mean 0.0 and 10.5", False),
        ({"column": "a", "stddev": [None, 3]}, "a stddev any and 3.0", False),
        ({"sql": "SELECT  true\nFROM rows"}, "SELECT true FROM rows", False),
    ],
)
def test_every_kind_of_rule_has_a_name_and_a_level(tmp_path: Path, entry: dict[str, Any], title: str, is_row_rule: bool) -> None:
    (rule,) = load(tmp_path, {"expect": [entry]}).expect
    assert (rule.title, rule.is_row_rule) == (title, is_row_rule)


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ({"on_fail": "warn"}, "expected exactly one of rule, complete"),
        ({"rule": "a > 1", "rows": [1, 2]}, "there are rule and rows"),
        ({"complete": True}, "complete needs column"),
        ({"column": "a", "rule": "a > 1"}, "goes without column"),
        ({"column": ["a", "b"], "complete": True}, "looks at one column, not 2"),
        ({"column": "a", "between": [5, 1]}, "would always fail"),
        ({"column": "a", "between": [None, None]}, "at least one bound"),
        ({"column": "a", "unique": "soon"}, "a time such as 30m or 1h"),
        ({"column": "a", "references": "airlines"}, r"expected reference\.NAME\.COLUMN"),
        ({"column": ["a", "b"], "references": "silver.x(a)"}, "compares 2 columns with 1"),
        ({"rows": [1, None], "on_fail": "drop"}, "looks at a whole micro-batch: expected warn or stop"),
        ({"rule": "a > 1", "on_fail": "shout"}, "'warn', 'drop', 'quarantine' or 'stop'"),
    ],
)
def test_a_rule_that_makes_no_sense_is_refused_with_table_line_and_reason(
    tmp_path: Path, entry: dict[str, Any], said: str
) -> None:
    with pytest.raises(ConfigError, match=said) as raised:
        load(tmp_path, {"expect": [entry]})
    assert "silver.orders" in str(raised.value)
    assert "headrace.yml:" in str(raised.value)


def test_rules_that_a_layer_cannot_keep_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"bronze keeps every record.*on_fail: drop on the silver table"):
        load(tmp_path, {"expect": [{"rule": "a > 1", "on_fail": "drop"}]}, "bronze.orders")
    with pytest.raises(ConfigError, match="gold tables take no rules"):
        load(tmp_path, {"from": "bronze.orders", "sql": "x.sql", "expect": [{"rule": "a > 1"}]}, "gold.orders")
    with pytest.raises(ConfigError, match="two rules are named 'a complete'"):
        load(tmp_path, {"expect": [{"column": "a", "complete": True}, {"column": "a", "complete": True, "on_fail": "drop"}]})


@pytest.mark.parametrize(
    ("steps", "said"),
    [
        ([{"select": ["a"], "filter": "a"}], "there are select and filter"),
        ([{}], "there is none"),
        ([{"join": "airlines"}], "join and by go together"),
        ([{"select": ["a"], "take": "b"}], "take goes with join"),
        ([{"python": "os.system('x')"}], "expected module:function"),
        ([{"filter": "a"}, {"filter": "a"}], "two steps are named 'filter a'"),
    ],
)
def test_a_step_that_makes_no_sense_is_refused(tmp_path: Path, steps: list[dict[str, Any]], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        load(tmp_path, {"transform": steps})


def test_steps_stand_on_silver_tables_only(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="between bronze and silver"):
        load(tmp_path, {"transform": [{"select": ["a"]}]}, "bronze.orders")
