"""Profile and suggest: figures counted by hand, and rules that load and hold."""

from __future__ import annotations

import json
from datetime import date, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml
from pyspark.sql import SparkSession

from jobs.quality import profile as profiling
from jobs.quality import suggest as suggesting
from jobs.quality.profile import ColumnProfile, profile
from pipeline.config import load_config
from tests.spark.rows import arrive, with_bronze


def by_name(found: list[ColumnProfile]) -> dict[str, ColumnProfile]:
    return {one.name: one for one in found}


def test_a_profile_counts_every_column(spark: SparkSession) -> None:
    letters = ["ab"[n % 2] if n < 90 else None for n in range(100)]
    data = [(n, float(n), letters[n], date(2026, 1, 1 + n % 31), datetime(2026, 1, 1), [n]) for n in range(100)]
    schema = "number int, ratio double, letter string, day date, at timestamp, list array<int>"
    found = by_name(profile(spark.createDataFrame(data, schema)))
    number, letter = found["number"], found["letter"]
    assert (number.rows, number.nulls, number.minimum, number.maximum) == (100, 0, 0, 99)
    assert number.distinct is not None
    assert abs(number.distinct - 100) <= 10
    assert number.quantiles == {"0.05": 4.0, "0.25": 24.0, "0.5": 49.0, "0.75": 74.0, "0.95": 94.0}
    assert list(number.buckets) == [5] * 20
    assert (letter.nulls, letter.top, letter.has_all_values) == (10, [("a", 45), ("b", 45)], True)
    assert (sum(found["day"].buckets), found["day"].minimum) == (100, date(2026, 1, 1))
    assert (found["at"].buckets, found["at"].distinct) == ((), 1)
    assert (found["list"].nulls, found["list"].distinct) == (0, None)


def test_a_profile_of_an_empty_table_has_no_pictures(spark: SparkSession) -> None:
    (one,) = profile(spark.createDataFrame([], "number int"))
    assert (one.rows, one.nulls, one.minimum, list(one.top), list(one.buckets)) == (0, 0, None, [], [])


@pytest.mark.parametrize(
    ("shape", "pattern"), [("AA-99", r"[A-Z]{2}\-[0-9]{2}"), ("a", "[a-z]"), ("9.9", r"[0-9]\.[0-9]"), ("AaA", "[A-Z][a-z][A-Z]")]
)
def test_a_shape_becomes_a_regular_expression(shape: str, pattern: str) -> None:
    assert suggesting._regular(shape) == pattern


def test_suggested_rules_hold_and_their_yaml_loads(
    lake: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shop = with_bronze(lake())
    arrive(shop, *((n, f"SKU-{n:03d}", n * 2 - 10, ("red", "green", None)[n % 3]) for n in range(60)))
    shop.run("silver.orders")
    entries = suggesting.suggest(shop.spark, shop.config, "silver.orders")
    assert entries == [
        {"column": "item", "complete": True, "on_fail": "warn"},
        {"column": "number", "complete": True, "on_fail": "warn"},
        {"column": "number", "between": [-10, 108], "on_fail": "warn"},
        {"column": "note", "complete": 0.66, "on_fail": "warn"},
        {"column": "note", "values": ["green", "red"], "on_fail": "warn"},
        {"column": "item", "matches": r"[A-Z]{3}\-[0-9]{3}", "on_fail": "warn"},
    ]
    piece = yaml.safe_load(suggesting.text("silver.orders", entries))
    whole = yaml.safe_load((shop.folder / "headrace.yml").read_text())
    whole["tables"]["silver.orders"] |= piece["tables"]["silver.orders"]
    file = shop.folder / "suggested.yml"
    file.write_text(yaml.safe_dump(whole))
    assert len(load_config(file).table("silver.orders").expect) == len(entries)
    monkeypatch.setattr(SparkSession, "stop", lambda self: None)  # it is everybody's
    told = ["silver.orders", "--config", str(file)]
    assert suggesting.main(told) == 0
    assert yaml.safe_load(capsys.readouterr().out) == piece
    assert profiling.main([*told, "--svg", str(tmp_path / "orders.svg"), "--json"]) == 0
    assert [one["name"] for one in json.loads(capsys.readouterr().out)] == ["item", "number", "note"]
    assert (tmp_path / "orders.svg").read_text().startswith("<svg ")
    assert profiling.main([*told, "--svg", str(tmp_path / "no" / "folder.svg")]) == 1
    assert "cannot be written" in capsys.readouterr().err
