"""Gold by changed keys: after every change of its sources the table is what computing it anew gives."""

from __future__ import annotations

import random
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from jobs import tables
from jobs.gold import GoldJob
from pipeline.errors import ConfigError, TableError

MakeShelf = Callable[..., Any]
START = datetime(2026, 1, 1, tzinfo=UTC)
ORDERS = "id int, shop string, at timestamp, amount int"
SHOPS = "shop string, city string"
TOTALS = """
    SELECT o.shop, count(*) AS orders, sum(o.amount) AS total, max(s.city) AS city
    FROM silver.orders o LEFT JOIN silver.shops s USING (shop) GROUP BY o.shop HAVING count(*) > 1
"""
DAYS = "SELECT date_trunc('DAY', at) AS day, count(DISTINCT shop) AS shops, count(DISTINCT id) AS n FROM silver.orders GROUP BY 1"
VISITS = """
    SELECT shop, unix_seconds(session_window(at, '2 hours').start) AS began, count(*) AS n
    FROM silver.orders WHERE shop IS NOT NULL GROUP BY shop, session_window(at, '2 hours')
"""


def incremental(source: str | list[str], file: str, *keys: str) -> dict[str, Any]:
    return {"from": source, "sql": file, "mode": "incremental", "keys": list(keys)}


def table_of(made: Any, sql: str, *sources: str, keys: tuple[str, ...] = ("shop",), mode: str = "incremental") -> None:
    (made.folder / "q.sql").write_text(sql)
    made.gold["gold.q"] = {"from": list(sources), "sql": "q.sql", "mode": mode} | ({"keys": list(keys)} if keys else {})


@pytest.fixture
def shop(shelf: MakeShelf) -> Any:
    made = shelf({}, {"orders": ["id"], "shops": ["shop"]})
    made.create("silver.orders", ORDERS)
    made.create("silver.shops", SHOPS)
    return made


class Model:
    """Orders and shops in Python, and what the three queries give."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.orders: dict[int, dict[str, Any]] = {}
        self.shops: dict[str, str] = {}

    def change(self) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        orders = []
        for id_ in self.random.sample(range(30), 8):
            at = START + timedelta(minutes=self.random.randrange(3 * 24 * 60))
            row = {"id": id_, "shop": self.random.choice([None, *"abcdef"]), "at": at, "amount": self.random.randrange(100)}
            orders.append(row | {"_deleted": self.random.random() < 0.3})
        shops = [{"shop": name, "city": self.random.choice("XYZ")} for name in self.random.sample("abcdef", 1)]
        for row in orders:
            self.orders.pop(row["id"], None)
            if not row["_deleted"]:
                self.orders[row["id"]] = row
        self.shops |= {row["shop"]: row["city"] for row in shops}
        return orders, shops

    def grouped(self, by: Callable[[dict[str, Any]], Any]) -> dict[Any, list[dict[str, Any]]]:
        out: dict[Any, list[dict[str, Any]]] = {}
        for row in self.orders.values():
            out.setdefault(by(row), []).append(row)
        return out

    def totals(self) -> list[tuple[Any, ...]]:
        groups = self.grouped(lambda row: row["shop"])
        return [(s, len(g), sum(r["amount"] for r in g), self.shops.get(s)) for s, g in groups.items() if len(g) > 1]

    def days(self) -> list[tuple[Any, ...]]:
        groups = self.grouped(lambda row: int((row["at"] - START) / timedelta(days=1)))
        return [(day, len({r["shop"] for r in g} - {None}), len(g)) for day, g in groups.items()]

    def visits(self) -> list[tuple[Any, ...]]:
        out: list[tuple[Any, ...]] = []
        for shop, group in self.grouped(lambda row: row["shop"]).items():
            times = sorted(row["at"] for row in group) if shop else []
            began: list[list[datetime]] = []
            for at in times:
                if began and at - began[-1][-1] <= timedelta(hours=2):
                    began[-1].append(at)
                else:
                    began.append([at])
            out += [(shop, int(session[0].timestamp()), len(session)) for session in began]
        return out


def test_random_inserts_updates_and_deletes_give_the_same_tables_as_computing_them_anew(shop: Any) -> None:
    for name, text in (("totals", TOTALS), ("days", DAYS), ("visits", VISITS)):
        (shop.folder / f"{name}.sql").write_text(text)
    shop.gold |= {
        "gold.totals": incremental(["silver.orders", "silver.shops"], "totals.sql", "shop"),
        "gold.days": incremental("silver.orders", "days.sql", "day"),
        "gold.visits": incremental("silver.orders", "visits.sql", "shop"),
    }
    seed = random.randrange(1 << 32)
    model = Model(seed)
    jobs = {name: GoldJob(shop.spark, shop.config, name) for name in shop.gold}
    for turn in range(3):
        orders, shops = model.change()
        shop.merge("orders", *orders)
        shop.merge("shops", *shops)
        assert all(job.refresh() for job in jobs.values())
        day = f"cast(unix_seconds(day) div 86400 - {int(START.timestamp()) // 86400} as int) day"
        for name, expected, columns in (
            ("totals", model.totals(), ()), ("days", model.days(), (day, "shops", "n")), ("visits", model.visits(), ())
        ):  # fmt: skip
            assert shop.rows(f"gold.{name}", *columns) == sorted(expected, key=repr), f"gold.{name}, turn {turn}, seed {seed}"
            assert shop.commit(f"gold.{name}").operation == ("MERGE" if turn else "WRITE"), name
    assert not any(job.refresh() for job in jobs.values())


def test_a_table_that_was_refreshed_goes_on_by_changes_and_a_step_that_died_is_done_again(shop: Any, monkeypatch: Any) -> None:
    shop.merge("orders", {"id": 1, "shop": "a"}, {"id": 2, "shop": "b"})
    table_of(shop, "SELECT shop, count(*) AS n FROM silver.orders GROUP BY shop", "silver.orders", keys=(), mode="refresh")
    assert shop.step("gold.q")
    table_of(shop, "SELECT shop, count(*) AS n FROM silver.orders GROUP BY shop", "silver.orders")
    assert shop.step("gold.q")  # once more as a whole: until now silver did not keep its changes
    assert (shop.rows("gold.q"), shop.commit("gold.q").operation) == ([("a", 1), ("b", 1)], "WRITE")
    shop.merge("orders", {"id": 1, "shop": "b"})
    with monkeypatch.context() as patch:
        patch.setattr("jobs.golds.commit.Output.replace", lambda *_: (_ for _ in ()).throw(RuntimeError("killed")))
        with pytest.raises(RuntimeError, match="killed"):
            shop.step("gold.q")
    assert shop.rows("gold.q") == [("a", 1), ("b", 1)]
    assert shop.step("gold.q")
    assert (shop.rows("gold.q"), shop.commit("gold.q").operation) == ([("b", 2)], "MERGE")
    assert not shop.step("gold.q")


def test_it_is_computed_anew_when_changes_cannot_tell_the_keys(shop: Any) -> None:
    sql = "SELECT o.shop, count(*) AS n, (SELECT max(city) FROM silver.shops) AS last FROM silver.orders o GROUP BY o.shop"
    table_of(shop, sql, "silver.orders", "silver.shops")
    shop.merge("orders", {"id": 1, "shop": "a"})
    shop.merge("shops", {"shop": "a", "city": "X"})
    shop.step("gold.q")
    shop.merge("orders", {"id": 2, "shop": "a"})
    shop.step("gold.q")
    assert (shop.rows("gold.q"), shop.commit("gold.q").operation) == ([("a", 2, "X")], "MERGE")
    shop.merge("shops", {"shop": "b", "city": "Y"})  # every row of the result reads it
    shop.step("gold.q")
    assert (shop.rows("gold.q"), shop.commit("gold.q").operation) == ([("a", 2, "Y")], "WRITE")
    target = f"delta.`{tables.table_path(shop.config, 'silver.orders')}`"
    for value in ("false", "true"):
        shop.merge("orders", {"id": 3, "shop": "b"}, {"id": 1, "shop": "b"})
        shop.spark.sql(f"ALTER TABLE {target} SET TBLPROPERTIES ('delta.enableChangeDataFeed' = '{value}')")
    shop.step("gold.q")  # some of the changes were not kept
    assert shop.rows("gold.q") == [("a", 1, "Y"), ("b", 2, "Y")]


def test_a_python_function_makes_the_rows_and_sees_the_references(shop: Any) -> None:
    (shop.folder / "cities.csv").write_text("city,land\nX,North\nY,South\n")
    (shop.folder / "marts_of_test.py").write_text(
        "def by_land(tables):\n"
        "    lands = tables['silver.shops'].join(tables['reference.cities'], 'city', 'left')\n"
        "    return tables['silver.orders'].join(lands, 'shop', 'left').groupBy('shop', 'land').count()\n"
    )
    shop.gold["gold.lands"] = {
        "from": ["silver.orders", "silver.shops"], "python": "marts_of_test:by_land", "mode": "incremental", "keys": ["shop"],
    }  # fmt: skip
    shop.merge("shops", {"shop": "a", "city": "X"}, {"shop": "b", "city": "Y"})
    shop.merge("orders", {"id": 1, "shop": "a"}, {"id": 2, "shop": "b"})
    shop.step("gold.lands")
    shop.merge("orders", {"id": 1, "shop": "b"})
    shop.step("gold.lands")
    assert (shop.rows("gold.lands"), shop.commit("gold.lands").operation) == ([("b", "South", 2)], "MERGE")
    (shop.folder / "cities.csv").write_text("city,land\nX,North\nY,East\n")
    shop.step("gold.lands")
    assert shop.rows("gold.lands") == [("b", "East", 2)]


@pytest.mark.parametrize(
    ("sql", "said"),
    [
        ("SELECT amount, count(*) AS shop FROM silver.orders GROUP BY amount", "does not say which of these"),
        ("SELECT shop, amount FROM silver.orders ORDER BY amount LIMIT 3", "does not say which of these"),
        ("SELECT max(shop) AS shop FROM silver.orders GROUP BY amount", "does not say which of these"),
        ("SELECT session_window(at, '1 hour').start AS shop FROM silver.orders GROUP BY session_window(at, '1 hour')",
         "does not say which of these"),
        ("SELECT amount FROM silver.orders", "gives no column 'shop'; it gives: amount"),
        ("SELECT shop, cost FROM silver.orders", "(?s)does not fit its tables.*cost"),
        ("SELECT a.shop FROM silver.orders a JOIN silver.orders b USING (shop)", "would multiply rows"),
        ("SELECT a.shop FROM silver.orders a JOIN reference.prices p ON a.shop = p.shop", "would multiply rows"),
        ("SELECT a.shop FROM silver.orders a CROSS JOIN silver.shops", "would multiply rows"),
    ],
)  # fmt: skip
def test_a_query_that_cannot_be_right_is_refused_with_the_reason_before_anything_is_written(
    shop: Any, sql: str, said: str
) -> None:
    (shop.folder / "prices.csv").write_text("shop,price\na,1\na,2\n")
    table_of(shop, sql, "silver.orders", "silver.shops")
    with pytest.raises((ConfigError, TableError), match=said) as raised:
        shop.step("gold.q")
    assert "gold.q" in str(raised.value)
    assert tables.version(shop.spark, tables.table_path(shop.config, "gold.q")) == -1


@pytest.mark.parametrize(
    ("sql", "has"),
    [
        ("INSERT INTO silver.orders SELECT * FROM silver.orders", "INSERT INTO"),
        ("WITH x AS (SELECT 1) INSERT INTO silver.orders SELECT * FROM x", "INSERT INTO"),
        ("MERGE INTO silver.orders t USING silver.shops s ON t.shop = s.shop WHEN MATCHED THEN DELETE", "MERGE INTO"),
        ("DELETE FROM silver.orders", "DELETE FROM"),
        ("UPDATE silver.orders SET amount = 0", "UPDATE"),
        ("DROP TABLE silver.orders", "DROP"),
        ("CREATE TABLE x AS SELECT * FROM silver.orders", "CREATE TABLE"),
        ("SET spark.sql.shuffle.partitions = 1", "SET"),
        ("OPTIMIZE silver.orders", "OPTIMIZE"),
    ],
)
def test_sql_that_does_more_than_read_is_refused_when_the_job_is_made(shop: Any, sql: str, has: str) -> None:
    table_of(shop, sql, "silver.orders", "silver.shops")
    with pytest.raises(ConfigError, match=f"gold.q may only read, and it has {has}"):
        GoldJob(shop.spark, shop.config, "gold.q")


def test_a_path_in_place_of_a_named_table_is_refused(shop: Any) -> None:
    table_of(shop, "SELECT * FROM delta.`/somewhere/else`", "silver.orders")
    with pytest.raises(TableError, match="which is not in its `from:`"):
        GoldJob(shop.spark, shop.config, "gold.q")
