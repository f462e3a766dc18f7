"""kill -9 amid gold's steps: every row is in a window or among the late ones, once, and queries give what they should."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from jobs.golds.late import read_late

REPOSITORY = Path(__file__).parents[2]
START = datetime(2026, 1, 1, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
SQL = "SELECT shop, count(*) AS n, sum(amount) AS total FROM silver.sales GROUP BY shop"


@pytest.fixture
def made(shelf: Callable[..., Any]) -> Any:
    made = shelf({}, {"sales": ["id"]}, bronze=["orders", "payments"])
    (made.folder / "totals.sql").write_text(SQL)
    times = {"bronze.orders": "at", "bronze.payments": "at"}
    select = {"order_id": "left.id", "payment_id": "right.id"}
    window = {"on": "at", "watermark": "30 minutes", "group_by": ["shop"], "aggregate": {"ids": "collect_list(id)"}}
    made.gold |= {
        "gold.totals": {"from": "silver.sales", "sql": "totals.sql", "mode": "incremental", "keys": ["shop"]},
        "gold.hours": {"from": "bronze.orders", "window": window | {"every": "10 minutes"}},
        "gold.visits": {"from": "bronze.orders", "window": window | {"gap": "1 minute"}},
        "gold.paid": {
            "from": ["bronze.orders", "bronze.payments"],
            "join": {"on": ["id"], "times": times, "after": "1 minute", "watermark": "30 minutes", "select": select},
        },
    }
    for table in ("silver.sales", "bronze.orders", "bronze.payments"):
        made.create(table, "id int, shop string, at timestamp, amount int")
    return made


def test_every_row_is_counted_once_after_a_kill_at_any_moment(made: Any) -> None:
    seed = random.randrange(1 << 32)
    random_, orders, sales = random.Random(seed), list[dict[str, Any]](), dict[int, dict[str, Any]]()

    def more(turn: int) -> None:
        rows = [
            {"id": 100 * turn + n, "shop": random_.choice("abc"), "at": START + (10 * turn - random_.randrange(60)) * MINUTE,
             "amount": random_.randrange(9)} for n in range(20)
        ]  # fmt: skip
        orders.extend(rows)
        changed = [row | {"id": row["id"] % 37} for row in {row["id"] % 37: row for row in rows}.values()]
        sales.update({row["id"]: row for row in changed})
        made.append("orders", *rows)
        made.append("payments", *rows)
        made.merge("sales", *changed)

    more(0)
    command = [sys.executable, "-m", "jobs.gold", "--config", str(made.config.path), "--mode", "100ms"]
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY), "HEADRACE_HOME": str(made.folder / "home")}
    running = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        deadline, turn = time.monotonic() + 180, 0
        while running.poll() is None and not all((made.folder / "lake" / "gold" / name).exists() for name in NAMES):
            assert time.monotonic() < deadline, "it did not begin"
            time.sleep(0.05)
        for turn in range(1, 5):
            more(turn)
    finally:
        running.kill()
        _, errors = running.communicate()
    assert running.returncode == -9, errors
    more(turn + 1)
    for table in made.gold:
        while made.step(table):
            pass
    check(made, orders, sales, f"seed {seed}")


NAMES = ("totals", "hours", "visits", "paid")


def check(made: Any, orders: list[dict[str, Any]], sales: dict[int, dict[str, Any]], seed: str) -> None:
    everything = Counter(row["id"] for row in orders)
    for table in ("gold.hours", "gold.visits"):
        there = Counter(id_ for (ids,) in made.rows(table, "ids") for id_ in ids)
        assert there + Counter(late_ids(made, table)) == everything, f"{table}, {seed}"
    groups = {shop: [row["amount"] for row in sales.values() if row["shop"] == shop] for shop in "abc"}
    assert made.rows("gold.totals") == [(shop, len(found), sum(found)) for shop, found in groups.items() if found], seed
    pairs = made.rows("gold.paid")
    assert pairs == [(id_, id_) for id_ in sorted({a for a, _ in pairs}, key=repr)], seed
    assert {id_ for id_, _ in pairs} | set(late_ids(made, "gold.paid")) == set(everything), seed


def late_ids(made: Any, table: str) -> list[int]:
    return [json.loads(row["record"])["id"] for row in read_late(made.spark, made.config, table).select("record").collect()]
