"""Running all tables together, and as processes of their own: continuous, stopped, killed, submitted."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pyspark
import pytest

from jobs import tables
from jobs.run import run_tables
from pipeline.errors import ConfigError, TableError
from pipeline.local.jars import ensure
from pipeline.local.java import spark_java_home
from pipeline.reshard import split

MakeLake = Callable[..., Any]
REPOSITORY = Path(__file__).parents[2]


def wait_until(condition: Callable[[], bool], what: str, seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.1)


def test_continuous_queries_follow_the_stream_through_a_split_and_stop_between_micro_batches(lake: MakeLake) -> None:
    shop = lake(shards=1, tables={"gold.count": {"from": "silver.orders", "sql": "count.sql", "mode": "refresh"}})
    (shop.folder / "count.sql").write_text("SELECT count(*) AS n, sum(number) AS total FROM silver.orders")
    shop.put(("item-0", 0))
    shop.run("bronze.orders", "silver.orders", "gold.count")  # the tables are there to look at
    stop, seen = threading.Event(), []
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(run_tables, shop.spark, shop.config, None, "200 ms", stop, seen.append)
        try:
            shop.put(*((f"item-{n}", 1) for n in range(8)))
            wait_until(lambda: running.done() or len(shop.numbers("silver.orders")) == 8, "silver did not follow")
            split(shop.stream, "s0", config=shop.config)
            shop.put(*((f"item-{n}", 2) for n in range(8)))
            wait_until(lambda: running.done() or shop.numbers("silver.orders") == [2] * 8, "the children were not read")
            counted = lambda: [tuple(row) for row in shop.read("gold.count").collect()]  # noqa: E731
            wait_until(lambda: running.done() or counted() == [(8, 16)], "gold did not follow")
        finally:
            stop.set()
        last = running.result(timeout=60)
    assert not shop.spark.streams.active
    assert len(shop.numbers()) == 1 + 8 + 8
    assert last["bronze.orders"].records == 17
    assert {progress.table for progress in seen} == {"bronze.orders", "silver.orders", "gold.count"}
    shop.put(("item-0", 3))
    shop.run("bronze.orders", "silver.orders")
    assert len(shop.numbers()) == 18


def test_one_failure_stops_the_others_and_is_the_one_raised(lake: MakeLake) -> None:
    shop = lake()
    shop.table_options["bronze.copy"] = {"from": shop.stream}
    shop.put(("apple", 1))
    shop.run("bronze.copy")
    checkpoint = Path(tables.checkpoint_path(shop.config, "bronze.copy"))
    (checkpoint / "offsets" / ".0.crc").unlink()
    (checkpoint / "offsets" / "0").write_text("rubbish")
    with pytest.raises(TableError, match="is damaged"):
        shop.run("bronze.orders", "bronze.copy", mode="continuous")
    assert not shop.spark.streams.active


def test_tables_made_from_each_other_and_unknown_modes_are_refused(lake: MakeLake) -> None:
    shop = lake(
        create=False,
        tables={
            "gold.a": {"from": "gold.b", "sql": "a.sql", "mode": "refresh"},
            "gold.b": {"from": "gold.a", "sql": "a.sql", "mode": "refresh"},
        },
    )
    with pytest.raises(ConfigError, match="circle"):
        shop.run("gold.a", "gold.b")
    with pytest.raises(ConfigError, match="expected available-now, continuous, or an interval"):
        shop.run(mode="now and then")


def headrace_run(shop: Any, *arguments: str) -> subprocess.Popen[str]:
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    config = str(shop.folder / "headrace.yml")
    command = [sys.executable, "-m", "pipeline.cli.main", "--config", config, "run", *arguments]
    return subprocess.Popen(command, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def test_nothing_is_lost_or_repeated_when_the_process_is_killed_and_it_ends_well_on_sigterm(lake: MakeLake) -> None:
    shop = lake()
    assert shop.config
    shop.put(*((f"item-{n}", n) for n in range(50)))
    killed = headrace_run(shop, "bronze.orders", "--mode", "continuous")
    try:
        wait_until(lambda: killed.poll() is not None or (shop.checkpoint / "offsets" / "0").exists(), "no micro-batch began")
    finally:
        killed.kill()
        killed.communicate()
    shop.put(*((f"item-{n}", 50 + n) for n in range(50)))
    again = headrace_run(shop, "--mode", "0.5 seconds")
    try:
        through = lambda: shop.version("silver.orders") > 0 and len(shop.numbers()) == 100  # noqa: E731
        wait_until(lambda: again.poll() is not None or through(), "it did not go on")
        again.send_signal(signal.SIGTERM)
        out, err = again.communicate(timeout=60)
    finally:
        again.kill()
    assert again.returncode == 0, err
    assert "bronze.orders: version" in out
    assert shop.numbers() == list(range(100))
    shop.run("bronze.orders", "silver.orders")
    assert shop.numbers() == list(range(100))
    assert shop.numbers("silver.orders") == list(range(50, 100))


def test_spark_submit_runs_a_job_and_a_wrong_call_ends_with_a_sentence(lake: MakeLake) -> None:
    shop = lake()
    assert shop.config
    shop.put(("apple", 1))
    submit = Path(pyspark.__file__).parent / "bin" / "spark-submit"
    environment = os.environ | {
        "PYTHONPATH": str(REPOSITORY), "JAVA_HOME": str(spark_java_home()), "PYSPARK_PYTHON": sys.executable,
        "PYSPARK_DRIVER_PYTHON": sys.executable,
    }  # fmt: skip
    jars = ",".join(str(jar) for jar in ensure("spark"))
    command = [str(submit), "--master", "local[2]", "--jars", jars, "--conf", "spark.ui.enabled=false"]
    arguments = ["--config", str(shop.folder / "headrace.yml"), "--mode", "available-now"]
    command += [str(REPOSITORY / "jobs" / "bronze.py"), *arguments]
    done = subprocess.run(command, env=environment, text=True, capture_output=True, timeout=240)
    assert done.returncode == 0, done.stderr[-3000:]
    assert shop.numbers() == [1]
    wrong = subprocess.run(
        [sys.executable, "-m", "jobs.gold", "--table", "bronze.orders", *arguments],
        env=environment, text=True, capture_output=True, timeout=60,
    )  # fmt: skip
    assert wrong.returncode == 1
    assert wrong.stderr.strip().endswith("bronze.orders is not a gold table: use jobs/bronze.py")
