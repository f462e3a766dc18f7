"""Gold: computed anew when its sources, its references or its query changed, and only then."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from jobs.gold import GoldJob
from jobs.golds.query import with_views
from pipeline.errors import ConfigError, TableError

MakeLake = Callable[..., Any]
SQL = """
    SELECT o.item, sum(o.number) AS total, max(p.price) AS price
    FROM silver.orders o JOIN reference.prices p USING (item) GROUP BY 1
"""


@pytest.fixture
def shop(lake: MakeLake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    made = lake(tables={"gold.totals": {"from": "silver.orders", "sql": "totals.sql", "mode": "refresh"}})
    (made.folder / "totals.sql").write_text(SQL + ";\n")
    with (tmp_path / "prices.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("item", "price"), ("apple", 2), ("pear", "NA")])
    config = type(made).config.fget  # type: ignore[attr-defined]
    with_prices = lambda self: config(self).model_copy(update={"references": {"prices": tmp_path / "prices.csv"}})  # noqa: E731
    monkeypatch.setattr(type(made), "config", property(with_prices))
    return made


def totals(shop: Any) -> set[tuple[Any, ...]]:
    return {tuple(row) for row in shop.read("gold.totals").collect()}


def test_gold_follows_its_sources_references_and_query_and_rests_when_nothing_changed(shop: Any, tmp_path: Path) -> None:
    everything = ("bronze.orders", "silver.orders", "gold.totals")
    shop.put(("apple", 1), ("pear", 2))
    shop.run(*everything)
    assert totals(shop) == {("apple", 1, 2), ("pear", 2, None)}
    version = shop.version("gold.totals")
    shop.run(*everything)
    assert shop.version("gold.totals") == version
    shop.put(("apple", 5))
    shop.run(*everything)
    assert totals(shop) == {("apple", 5, 2), ("pear", 2, None)}
    (tmp_path / "prices.csv").write_text("item,price\napple,30\n")
    shop.run("gold.totals")
    assert totals(shop) == {("apple", 5, 30)}
    (shop.folder / "totals.sql").write_text("SELECT count(*) AS n FROM silver.orders")
    shop.run("gold.totals")
    assert totals(shop) == {(2,)}


def test_a_query_that_does_not_fit_leaves_the_table_as_it_was(shop: Any) -> None:
    shop.put(("apple", 1))
    shop.run("bronze.orders", "silver.orders", "gold.totals")
    for query, said in (("SELECT nothing FROM silver.orders", "does not fit"), ("SELECT FROM WHERE", "does not fit")):
        (shop.folder / "totals.sql").write_text(query)
        with pytest.raises(TableError, match=said):
            shop.run("gold.totals")
    (shop.folder / "totals.sql").unlink()
    with pytest.raises(ConfigError, match="cannot be read"):
        GoldJob(shop.spark, shop.config, "gold.totals").refresh()
    assert totals(shop) == {("apple", 1, 2)}


def test_names_are_replaced_outside_of_texts_and_comments_only() -> None:
    text = "SELECT 'silver.a', x.silver.a, \"silver.a\" /* silver.a */ FROM silver.a -- silver.a\nJOIN reference.b"
    assert with_views(text, {"silver.a", "reference.b"}, "gold.t") == (
        "SELECT 'silver.a', x.silver.a, \"silver.a\" /* silver.a */ FROM headrace_silver_a -- silver.a\nJOIN headrace_reference_b"
    )


def test_a_table_that_is_not_in_from_is_refused() -> None:
    with pytest.raises(TableError, match=r"silver.b, which is not in its `from:`"):
        with_views("SELECT * FROM silver.a JOIN silver.b", {"silver.a"}, "gold.t")
