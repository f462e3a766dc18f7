"""Crash points are where they are said to be: each is reached, in order; a job dies at one, JVM and all, and goes on after it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from jobs import crash
from pipeline import Producer

MakeLake = Callable[..., Any]
REPOSITORY = Path(__file__).parents[2]
GOLD = {"gold.count": {"from": "silver.orders", "sql": "count.sql", "mode": "refresh"}}


def test_every_point_is_reached_in_its_order_by_a_run_of_all_layers(lake: MakeLake, monkeypatch: pytest.MonkeyPatch) -> None:
    shop = lake(shards=1, dedup="exact", tables=GOLD)
    (shop.folder / "count.sql").write_text("SELECT count(*) AS n FROM silver.orders")
    with Producer(shop.stream, config=shop.config) as producer:
        producer.put({"item": "a", "number": 1, "note": None}, key="a", id="first")
    seen: list[str] = []
    monkeypatch.setattr(crash, "_trigger", lambda point, folder=None: seen.append(point))
    shop.run("bronze.orders", "silver.orders", "gold.count")
    assert set(seen) == set(crash.POINTS)
    for layer in ("bronze", "silver", "gold"):
        expected = [point for point in crash.POINTS if point.startswith(layer)]
        assert list(dict.fromkeys(point for point in seen if point.startswith(layer))) == expected


@pytest.mark.parametrize("left", [[], [".00000000000000000000.json.5c4f.tmp"]], ids=["empty", "half a version"])
def test_a_table_is_made_anew_when_a_crash_left_a_log_without_a_version(lake: MakeLake, left: list[str]) -> None:
    shop = lake(shards=1)
    assert shop.config
    log = Path(str(shop.config.warehouse)) / "bronze" / "orders" / "_delta_log"
    log.mkdir(parents=True)
    for name in left:
        (log / name).write_text('{"commitInfo"')
    shop.put(("a", 1))
    shop.run("bronze.orders")
    assert shop.numbers() == [1]


def processes_with(variable: str, value: str) -> list[psutil.Process]:
    return [one for one in psutil.process_iter(["environ"]) if (one.info["environ"] or {}).get(variable) == value]


def test_a_job_dies_at_its_point_with_its_jvm_and_the_next_run_completes_what_it_left(lake: MakeLake) -> None:
    shop = lake(shards=1)
    assert shop.config
    shop.put(*((f"item-{n}", n) for n in range(20)))
    command = [sys.executable, "-m", "jobs.run", "--config", str(shop.folder / "headrace.yml"), "bronze.orders"]
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY), crash.VARIABLE: "bronze.before_commit", "ITS_TEST": shop.stream}
    with subprocess.Popen(command, env=environment, text=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as job:
        try:
            _, said = job.communicate(timeout=240)
        finally:
            job.kill()
    assert (job.returncode, said.strip().splitlines()[-1]) == (-signal.SIGKILL, "killed at crash point bronze.before_commit")
    table = Path(str(shop.config.warehouse)) / "bronze" / "orders"
    deadline = time.monotonic() + 30  # a killed JVM takes its time to give its memory back
    while left := processes_with("ITS_TEST", shop.stream):
        assert time.monotonic() < deadline, left
        time.sleep(0.01)
    assert list(table.glob("*.parquet"))
    assert shop.version() == 0  # made, and nothing committed
    shop.run("bronze.orders")
    assert shop.numbers() == list(range(20))
