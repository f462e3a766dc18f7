"""Windows: what is in time gives what one computation over it gives, and what is late is in the side table, each row once."""

from __future__ import annotations

import json
import random
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from jobs.gold import GoldJob
from jobs.golds.aggregate import SALT, Aggregates
from jobs.golds.late import read_late
from jobs.progress import TableProgress
from jobs.run import run_tables
from jobs.tables import version
from pipeline import metrics
from pipeline.errors import ConfigError

MakeShelf = Callable[..., Any]
START = datetime(2026, 1, 1, tzinfo=UTC)
MINUTE, HOUR = timedelta(minutes=1), timedelta(hours=1)
COLUMNS = "id int, shop string, at timestamp, amount int"
SUMS = {"n": "count(*)", "total": "sum(amount)", "low": "min(amount)", "mean": "avg(amount)", "big": "count_if(amount > 50)"}
FIELDS = ("unix_seconds(window_start)", "unix_seconds(window_end)", "shop", *SUMS)
Row = dict[str, Any]


def window(source: str, **options: Any) -> dict[str, Any]:
    defaults = {"on": "at", "watermark": "2 hours", "group_by": ["shop"], "aggregate": SUMS}
    return {"from": source, "window": defaults | options}


def windows_of(row: Row, length: timedelta, slide: timedelta) -> list[datetime]:
    """Starts of the windows that hold a row, by trying every one near it."""
    first = START + ((row["at"] - START) // slide) * slide
    return [s for s in (first - n * slide for n in range(10)) if s <= row["at"] < s + length]


def summed(start: datetime, end: datetime, shop: str | None, rows: list[Row]) -> tuple[Any, ...]:
    amounts = [row["amount"] for row in rows]
    mean = sum(amounts) / len(amounts)
    big = sum(amount > 50 for amount in amounts)
    return (int(start.timestamp()), int(end.timestamp()), shop, len(rows), sum(amounts), min(amounts), mean, big)


class Stream:
    """Rows in random order of time, and for a kind of window which are late: recomputed here from the rule alone."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.number = 0

    def rows(self, turn: int) -> list[Row]:
        out: list[Row] = []
        for _ in range(12):
            at = START + turn * 2 * HOUR + self.random.randrange(-500, 120) * MINUTE
            self.number += 1
            shop = self.random.choice([None, "a", "b"])
            out.append({"id": self.number, "shop": shop, "at": at, "amount": self.random.randrange(100)})
        out[0]["at"] = None
        return out


def expected_windows(turns: list[list[Row]], length: timedelta, slide: timedelta) -> tuple[list[Any], list[Any]]:
    """(windows, [(id, how many windows it missed)]) with a watermark two hours behind the newest row of earlier turns."""
    groups: dict[Any, list[Row]] = {}
    late, newest = [], None
    for rows in turns:
        watermark = newest - 2 * HOUR if newest else None
        for row in rows:
            if row["at"] is None:
                late.append((row["id"], 0))
                continue
            missed = 0
            for start in windows_of(row, length, slide):
                if watermark is not None and start + length <= watermark:
                    missed += 1
                else:
                    groups.setdefault((start, row["shop"]), []).append(row)
            late += [(row["id"], missed)] if missed else []
        newest = max([row["at"] for row in rows if row["at"]] + ([newest] if newest else []))
    return [summed(start, start + length, shop, rows) for (start, shop), rows in groups.items()], late


def expected_sessions(turns: list[list[Row]], gap: timedelta) -> tuple[list[Any], list[Any]]:
    kept: dict[Any, list[Row]] = {}
    late, newest = [], None
    for rows in turns:
        watermark = newest - 2 * HOUR if newest else None
        for row in rows:
            if row["at"] is None or (watermark is not None and row["at"] + gap <= watermark):
                late.append((row["id"], 0 if row["at"] is None else 1))
            else:
                kept.setdefault(row["shop"], []).append(row)
        newest = max([row["at"] for row in rows if row["at"]] + ([newest] if newest else []))
    out = []
    for shop, rows in kept.items():
        session: list[Row] = []
        for row in [*sorted(rows, key=lambda one: one["at"]), None]:
            if session and (row is None or row["at"] > session[-1]["at"] + gap):
                out.append(summed(session[0]["at"], session[-1]["at"] + gap, shop, session))
                session = []
            session.append(row)
    return out, late


def late_of(made: Any, table: str) -> list[tuple[int, int]]:
    rows = read_late(made.spark, made.config, table).selectExpr("record", "coalesce(size(missed), 0) n").collect()
    return sorted((json.loads(row["record"])["id"], row["n"]) for row in rows)


def test_random_rows_give_the_windows_of_all_that_were_in_time_and_the_rest_is_kept_once(shelf: MakeShelf) -> None:
    made = shelf(
        {
            "gold.tumbling": window("bronze.sales", every="1 hour", salted=False),
            "gold.sliding": window("bronze.sales", every="90 minutes", slide="40 minutes"),
            "gold.sessions": window("bronze.sales", gap="20 minutes"),
        },
        bronze=["sales"],
        ordering="salted",
    )
    made.create("bronze.sales", COLUMNS)
    seed = random.randrange(1 << 32)
    stream, turns, jobs = Stream(seed), [], {name: GoldJob(made.spark, made.config, name) for name in made.gold}
    for turn in range(3):
        turns.append(stream.rows(turn))
        made.append("sales", *turns[-1])
        assert all(job.refresh() for job in jobs.values())
    for name, (rows, late) in {
        "gold.tumbling": expected_windows(turns, HOUR, HOUR),
        "gold.sliding": expected_windows(turns, 90 * MINUTE, 40 * MINUTE),
        "gold.sessions": expected_sessions(turns, 20 * MINUTE),
    }.items():
        assert made.rows(name, *FIELDS) == sorted(rows, key=repr), f"{name}, seed {seed}"
        assert late_of(made, name) == sorted(late), f"{name}, seed {seed}"
        assert made.commit(name).metadata["late"] == len(late)
    assert not any(job.refresh() for job in jobs.values())


def test_a_step_that_died_between_late_rows_and_windows_is_finished_as_it_began(shelf: MakeShelf, monkeypatch: Any) -> None:
    made = shelf({"gold.hours": window("bronze.sales", every="1 hour")}, bronze=["sales"])
    made.create("bronze.sales", COLUMNS)
    rows = [
        {"id": n, "shop": "a", "at": START + hours * HOUR, "amount": 1} for n, hours in enumerate((10, 11, 2, 11, 30, 3, 4, 30))
    ]
    made.append("sales", *rows[:2])
    made.step("gold.hours")
    made.append("sales", *rows[2:4])
    with monkeypatch.context() as patch:
        patch.setattr("jobs.golds.commit.Output.replace", lambda *_: (_ for _ in ()).throw(RuntimeError("killed")))
        with pytest.raises(RuntimeError, match="killed"):
            made.step("gold.hours")
    assert late_of(made, "gold.hours") == [(2, 1)]
    made.append("sales", *rows[4:6])  # came in the meantime: of the next step, whatever its watermark
    for expected in (True, True, False):
        assert made.step("gold.hours") is expected
    assert late_of(made, "gold.hours") == [(2, 1), (5, 1)]
    made.append("sales", *rows[6:])
    made.step("gold.hours")
    assert late_of(made, "gold.hours") == [(2, 1), (5, 1), (6, 1)]
    hours = made.rows("gold.hours", f"cast((unix_seconds(window_start) - {int(START.timestamp())}) div 3600 as int)", "n")
    assert hours == [(10, 1), (11, 2), (30, 2)]


def test_open_windows_over_silver_follow_updates_and_deletes_and_closed_ones_keep_them_aside(shelf: MakeShelf) -> None:
    made = shelf({"gold.hours": window("silver.sales", every="1 hour", aggregate={"total": "sum(amount)"})}, {"sales": ["id"]})
    made.create("silver.sales", COLUMNS)
    hours = (f"cast((unix_seconds(window_start) - {int(START.timestamp())}) div 3600 as int) h", "shop", "total")

    def sale(id_: int, hour: int, amount: int, **more: Any) -> Row:
        return {"id": id_, "shop": "a", "at": START + hour * HOUR, "amount": amount} | more

    made.merge("sales", sale(1, 1, 10), sale(2, 8, 20), sale(3, 9, 30), sale(4, 9, 1), sale(5, 1, 7), sale(6, 1, 9))
    made.step("gold.hours")
    assert made.rows("gold.hours", *hours) == [(1, "a", 26), (8, "a", 20), (9, "a", 31)]
    gone = {"_deleted": True, "shop": None, "at": None, "amount": None}
    # The watermark is at 7:00. In time: an update, a move from 8:00 to 9:00, a delete. Late: an update, a move, a delete.
    made.merge("sales", sale(3, 9, 31), sale(2, 9, 20), {"id": 4} | gone, sale(1, 1, 11), sale(5, 9, 7), {"id": 6} | gone)
    made.step("gold.hours")
    assert made.rows("gold.hours", *hours) == [(1, "a", 26), (9, "a", 58)]
    late = read_late(made.spark, made.config, "gold.hours").select("change", "record", "reason").collect()
    assert sorted((row["change"], json.loads(row["record"])["id"], row["reason"]) for row in late) == [
        ("update_postimage", 1, "late"), ("update_preimage", 5, "late"), ("update_preimage", 6, "late"),
    ]  # fmt: skip


def test_windows_made_by_other_options_are_computed_anew_with_what_had_been_late(shelf: MakeShelf) -> None:
    made = shelf({"gold.hours": window("bronze.sales", every="1 hour", aggregate={"n": "count(*)"})}, bronze=["sales"])
    made.create("bronze.sales", COLUMNS)
    made.append("sales", {"id": 1, "shop": "a", "at": START + 10 * HOUR, "amount": 1})
    made.step("gold.hours")
    made.append("sales", {"id": 2, "shop": "a", "at": START, "amount": 1})
    made.step("gold.hours")
    assert late_of(made, "gold.hours") == [(2, 1)]
    made.gold["gold.hours"]["window"]["aggregate"] = {"number": "count(*)"}
    made.step("gold.hours")
    assert made.rows("gold.hours", "shop", "number") == [("a", 1), ("a", 1)]
    assert late_of(made, "gold.hours") == []


def test_a_row_from_the_future_does_not_make_all_others_late(shelf: MakeShelf) -> None:
    made = shelf({"gold.hours": window("bronze.sales", every="1 hour", aggregate={"n": "count(*)"})}, bronze=["sales"])
    made.create("bronze.sales", COLUMNS)
    now = datetime.now(UTC)
    made.append("sales", {"id": 1, "shop": "a", "at": now + timedelta(days=400), "amount": 1})
    made.step("gold.hours")
    made.append("sales", {"id": 2, "shop": "a", "at": now, "amount": 1})
    made.step("gold.hours")
    assert late_of(made, "gold.hours") == []
    assert len(made.rows("gold.hours")) == 2


def test_two_phases_give_what_one_gives_for_each_aggregate_whatever_the_salts(spark: Any) -> None:
    seed = random.randrange(1 << 32)
    random_ = random.Random(seed)
    choose = random_.choice
    times = [START + random_.randrange(600) * MINUTE for _ in range(120)]
    data = [(choose([None, "a"]), at, choose([None, *range(9)]), choose([True, False]), choose("0123")) for at in times]
    rows = spark.createDataFrame(data, f"shop string, at timestamp, x int, ok boolean, {SALT} string").cache()
    columns = {
        "n": "count(*)", "some": "count(x)", "many": "count_if(x > 4)", "total": "sum(x)", "mean": "avg(x)",
        "exact": "sum(cast(x AS decimal(9, 2)))", "low": "min(x)", "high": "max(x + 1)", "all": "bool_and(ok)",
        "one": "bool_or(ok)",
    }  # fmt: skip
    one, two = (Aggregates("t", columns, salted) for salted in (False, True))
    for plain, salted in (
        (one.over(rows, ["shop"]), two.over(rows, ["shop"])),
        (one.over_sessions(rows, ["shop"], "at", "5 minutes"), two.over_sessions(rows, ["shop"], "at", "5 minutes")),
    ):
        assert plain.dtypes == salted.dtypes
        assert sorted(plain.collect(), key=repr) == sorted(salted.collect(), key=repr), f"seed {seed}"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"on": "when"}, "window: bronze.sales has no column 'when'; there are: id, shop, at, amount"),
        ({"group_by": ["town"]}, "window: bronze.sales has no column 'town'"),
        ({"on": "amount"}, "amount of bronze.sales is int: event times have to be a timestamp"),
        ({"aggregate": {"n": "sum(cost)"}}, "(?s)window.aggregate: does not fit bronze.sales.*cost"),
        ({"aggregate": {"n": "count(DISTINCT id)"}, "salted": True}, "window.aggregate.n: .* cannot be put together from parts"),
    ],
)
def test_a_window_that_does_not_fit_its_table_is_refused_and_nothing_is_made(
    shelf: MakeShelf, options: dict[str, Any], said: str
) -> None:
    made = shelf({"gold.hours": window("bronze.sales", every="1 hour", **options)}, bronze=["sales"])
    made.create("bronze.sales", COLUMNS)
    with pytest.raises(ConfigError, match=said) as raised:
        made.step("gold.hours")
    assert "tables.gold.hours" in str(raised.value)
    assert version(made.spark, f"{made.config.warehouse}/gold/hours") == -1


def test_continuous_gold_follows_its_source_and_tells_late_rows_and_watermark(
    shelf: MakeShelf, monkeypatch: Any, tmp_path: Path
) -> None:
    monkeypatch.setenv("HEADRACE_HOME", str(tmp_path / "home"))
    made = shelf({"gold.followed": window("bronze.sales", every="1 hour", aggregate={"n": "count(*)"})}, bronze=["sales"])
    made.create("bronze.sales", COLUMNS)
    made.append("sales", {"id": 1, "shop": "a", "at": START + 10 * HOUR, "amount": 1})
    stop, seen = threading.Event(), list[TableProgress]()
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(run_tables, made.spark, made.config, ["gold.followed"], "100 ms", stop, seen.append)
        try:
            wait_until(lambda: running.done() or any(one.records for one in seen), "it did not begin")
            made.append("sales", {"id": 2, "shop": "a", "at": START, "amount": 1})
            wait_until(lambda: running.done() or any(one.late for one in seen), "the late row was not counted")
        finally:
            stop.set()
        last = running.result(timeout=60)["gold.followed"]
    assert (last.late, last.watermark_us) == (1, int((START + 8 * HOUR).timestamp() * 1e6))
    assert metrics.TABLE_LATE.labels("gold.followed")._value.get() == 1
    assert metrics.TABLE_WATERMARK.labels("gold.followed")._value.get() == (START + 8 * HOUR).timestamp()


def wait_until(condition: Callable[[], bool], what: str, seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.1)
