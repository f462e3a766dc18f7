"""Joined streams: every pair of rows in time once, rows without a match once they are past, late rows in the side table."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from jobs.gold import GoldJob
from jobs.golds.commit import Output
from jobs.golds.late import read_late
from pipeline.errors import ConfigError

MakeShelf = Callable[..., Any]
START = datetime(2026, 1, 1, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
BEFORE, AFTER, LATENESS = 5 * MINUTE, 30 * MINUTE, 20 * MINUTE
SELECT = {"item": "left.item", "order_id": "left.id", "payment_id": "right.id"}
Row = dict[str, Any]


def joined(**options: Any) -> dict[str, Any]:
    times = {"bronze.orders": "at", "bronze.payments": "paid_at"}
    bounds = {"before": "5 minutes", "after": "30 minutes", "watermark": "20 minutes"}
    join = {"on": ["item"], "times": times, "kind": "left", "select": SELECT} | bounds | options
    return {"from": ["bronze.orders", "bronze.payments"], "join": join}


@pytest.fixture
def shop(shelf: MakeShelf) -> Any:
    made = shelf({"gold.paid": joined()}, bronze=["orders", "payments"])
    made.create("bronze.orders", "id int, item string, at timestamp")
    made.create("bronze.payments", "id int, item string, paid_at timestamp")
    return made


def turn_of(random_: random.Random, turn: int, time: str) -> list[Row]:
    out = []
    for at in range(8):
        row = {"id": 100 * turn + at, "item": random_.choice([None, "a", "b", "c"])}
        out.append(row | {time: START + turn * 60 * MINUTE + random_.randrange(-90, 60) * MINUTE})
    return out


def expected(turns: list[tuple[list[Row], list[Row]]]) -> tuple[list[Any], list[Any]]:
    """Pairs and lone orders, and the late rows, from the rule alone."""
    orders: list[Row] = []
    payments: list[Row] = []
    late: list[Any] = []
    newest: list[datetime] = []
    watermark = None
    for new_orders, new_payments in turns:
        for name, rows, time, kept in (("orders", new_orders, "at", orders), ("payments", new_payments, "paid_at", payments)):
            for row in rows:
                if watermark is not None and row[time] < watermark:
                    late.append((f"bronze.{name}", row["id"]))
                else:
                    kept.append(row)
        seen = [max(row["at"] for row in new_orders), max(row["paid_at"] for row in new_payments)]
        newest = [max(pair) for pair in zip(seen, newest or seen, strict=True)]
        watermark = min(newest) - LATENESS
    assert watermark is not None
    out: list[Any] = []
    for order in orders:
        matches = [
            p["id"] for p in payments
            if order["item"] is not None and p["item"] == order["item"] and -BEFORE <= p["paid_at"] - order["at"] <= AFTER
        ]  # fmt: skip
        if not matches and order["at"] + AFTER < watermark:
            matches = [None]
        out += [(order["item"], order["id"], match) for match in matches]
    return sorted(out, key=repr), sorted(late)


def late_of(shop: Any) -> list[Any]:
    rows = read_late(shop.spark, shop.config, "gold.paid").select("source", "record").collect()
    return sorted((row["source"], json.loads(row["record"])["id"]) for row in rows)


def test_random_streams_give_each_pair_once_and_lone_rows_once_none_can_match_them(shop: Any) -> None:
    seed = random.randrange(1 << 32)
    random_, turns = random.Random(seed), []
    job = GoldJob(shop.spark, shop.config, "gold.paid")
    for turn in range(4):
        turns.append((turn_of(random_, turn, "at"), turn_of(random_, turn, "paid_at")))
        shop.append("orders", *turns[-1][0])
        shop.append("payments", *turns[-1][1])
        assert job.refresh()
    rows, late = expected(turns)
    assert shop.rows("gold.paid") == rows, f"seed {seed}"
    assert late_of(shop) == late, f"seed {seed}"
    assert shop.commit("gold.paid").metadata["late"] == len(late)
    assert not job.refresh()


def test_a_step_that_died_before_its_commit_gives_its_pairs_and_late_rows_once(shop: Any, monkeypatch: Any) -> None:
    def order(id_: int, minute: int) -> None:
        shop.append("orders", {"id": id_, "item": "a", "at": START + minute * MINUTE})

    def payment(id_: int, minute: int) -> None:
        shop.append("payments", {"id": id_, "item": "a", "paid_at": START + minute * MINUTE})

    order(1, 60)
    payment(1, 61)
    shop.step("gold.paid")
    order(2, 10)  # the watermark is at 0:40
    payment(2, 62)
    append = Output.append

    def dies(output: Any, rows: Any, metadata: Any) -> None:
        if not output.path.endswith("__late"):
            raise RuntimeError("killed")
        append(output, rows, metadata)

    with monkeypatch.context() as patch:
        patch.setattr(Output, "append", dies)
        with pytest.raises(RuntimeError, match="killed"):
            shop.step("gold.paid")
    payment(3, 11)
    for expected_ in (True, True, False):
        assert shop.step("gold.paid") is expected_
    assert shop.rows("gold.paid") == [("a", 1, 1), ("a", 1, 2)]
    assert late_of(shop) == [("bronze.orders", 2), ("bronze.payments", 3)]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"on": ["thing"]}, "bronze.orders has no column 'thing'"),
        ({"times": {"bronze.orders": "at", "bronze.payments": "at"}}, "bronze.payments has no column 'at'"),
        ({"times": {"bronze.orders": "id", "bronze.payments": "paid_at"}}, "id of bronze.orders is int"),
        ({"select": {}}, "both tables have id: say with `select:`"),
        ({"select": {"x": "left.price"}}, "(?s)does not fit its tables.*price"),
    ],
)
def test_a_join_that_does_not_fit_its_tables_is_refused(shop: Any, options: dict[str, Any], said: str) -> None:
    shop.gold["gold.paid"] = joined(**options)
    with pytest.raises(ConfigError, match=said) as raised:
        shop.step("gold.paid")
    assert "tables.gold.paid.join" in str(raised.value)
