"""Ordered tables: a function sees each key's records in the order they were put, with its state, once."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from pyspark.sql import functions as F

from jobs import ordered, tables
from jobs.commits import read_commit
from jobs.ordered import OrderedJob
from jobs.run import run_tables
from pipeline.errors import ConfigError, HandlerError, InvariantError, TableError
from pipeline.reshard import merge, split
from tests.spark import functions

MakeLake = Callable[..., Any]
REPOSITORY = Path(__file__).parents[2]
SCHEMAS = {"state": "count int, last int", "output": "item string, number int, count int, before int"}
SEEN = {"from": "bronze.orders", "ordered": SCHEMAS | {"function": "tests.spark.functions:seen"}}


@pytest.fixture
def shop(lake: MakeLake) -> Any:
    return lake(shards=1, tables={"silver.seen": SEEN})


def saw(shop: Any) -> dict[str, list[int]]:
    """The numbers in the order in which the function saw them, per item, after checking that its state went along."""
    out: dict[str, list[tuple[int, int, int]]] = defaultdict(list)
    for row in shop.read("silver.seen").collect():
        out[row["item"]].append((row["count"], row["number"], row["before"]))
    for rows in out.values():
        rows.sort()
        assert [count for count, _, _ in rows] == list(range(1, len(rows) + 1))
        assert [before for _, _, before in rows] == [None, *(number for _, number, _ in rows[:-1])]
    return {item: [number for _, number, _ in rows] for item, rows in out.items()}


def expected(*puts: tuple[str, int]) -> dict[str, list[int]]:
    out: dict[str, list[int]] = defaultdict(list)
    for item, number in puts:
        out[item].append(number)
    return dict(out)


def wait_until(condition: Callable[[], bool], what: str, seconds: float = 180) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.2)


def test_keys_keep_their_order_through_a_split_and_a_merge_while_both_jobs_run(shop: Any) -> None:
    puts = [(f"item-{n % 7}", n) for n in range(120)]
    shop.put(*puts[:20])
    shop.run("bronze.orders", "silver.seen")
    stop = threading.Event()
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(run_tables, shop.spark, shop.config, ["bronze.orders", "silver.seen"], "200 ms", stop)
        try:
            shop.put(*puts[20:50])
            split(shop.stream, "s0", config=shop.config)
            shop.put(*puts[50:80])
            merge(shop.stream, *sorted(shard.id for shard in shop.shard_map().leaves), config=shop.config)
            shop.put(*puts[80:])
            wait_until(lambda: running.done() or len(shop.numbers("silver.seen")) >= len(puts), "the function did not see all")
        finally:
            stop.set()
        running.result(timeout=120)
    assert saw(shop) == expected(*puts)
    generations = {row[0] for row in shop.read().select("_meta.order.generation").collect()}
    assert generations == {0, 1, 2}


def test_nothing_is_seen_twice_when_it_dies_after_its_commit_and_before_sparks(
    shop: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    puts = [("apple", 0), ("pear", 1), ("apple", 2), ("apple", 3), ("pear", 4)]
    shop.put(*puts[:3])
    shop.run("bronze.orders", "silver.seen")
    shop.put(*puts[3:4])
    shop.run("bronze.orders")
    with monkeypatch.context() as patch:

        def die(_: Any) -> None:
            raise InvariantError("killed by the test")

        patch.setattr(OrderedJob, "_report", die)
        with pytest.raises(InvariantError):
            shop.run("silver.seen")
    shop.put(*puts[4:])
    shop.run("bronze.orders", "silver.seen")
    assert saw(shop) == expected(*puts)


def test_files_of_one_commit_do_not_come_one_after_the_other(shop: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    shop.put(("apple", 1))
    shop.run("bronze.orders", "silver.seen")
    path = tables.table_path(shop.config, "bronze.orders")
    stored = shop.spark.read.format("delta").option("versionAsOf", shop.version("bronze.orders")).load(path)

    def later(by: int) -> Any:
        order = F.struct("_meta.order.generation", (F.col("_meta.order.offset") + by).alias("offset"), "_meta.order.index")
        moved = F.col("_meta").withField("order", order)
        return stored.withColumn("_meta", moved).withColumn("number", F.col("number") + by)

    offset = F.col("_meta.order.offset")
    for numbers, order in (((1, 2), offset.desc()), ((3, 4), offset.asc())):  # in one commit the newer record comes first
        rows = later(numbers[0]).union(later(numbers[1])).repartitionByRange(2, order)
        rows.write.format("delta").mode("append").save(path)
        added = read_commit(shop.spark, path, shop.version("bronze.orders"))
        assert added is not None
        assert added.files == 2
    with monkeypatch.context() as patch:
        patch.setattr(ordered, "ALL_FILES", 1)
        with pytest.raises(InvariantError, match=r"of key 'apple', it came after .* out of order"):
            shop.run("silver.seen")
    shutil.rmtree(tables.table_path(shop.config, "silver.seen"))
    shutil.rmtree(tables.checkpoint_path(shop.config, "silver.seen"))
    shop.run("silver.seen")
    assert saw(shop) == {"apple": [1, 2, 3, 4, 5]}


def test_it_goes_on_where_it_was_when_its_driver_is_killed(shop: Any) -> None:
    puts = [(f"item-{n % 3}", n) for n in range(30)]
    shop.put(*puts)
    shop.run("bronze.orders")
    planned = Path(tables.checkpoint_path(shop.config, "silver.seen")) / "offsets" / "0"
    command = [sys.executable, "-m", "jobs.run", "silver.seen", "--config", str(shop.folder / "headrace.yml")]
    killed = subprocess.Popen(command, env=os.environ | {"PYTHONPATH": str(REPOSITORY)}, stderr=subprocess.PIPE, text=True)
    try:
        wait_until(lambda: killed.poll() is not None or planned.exists(), "no micro-batch began")
    finally:
        killed.send_signal(signal.SIGKILL)
        _, said = killed.communicate()
    assert killed.returncode == -signal.SIGKILL, said
    shop.run("silver.seen")
    assert saw(shop) == expected(*puts)


def test_a_function_that_raises_stops_the_job_and_nothing_is_lost(shop: Any) -> None:
    puts = [("apple", 12), ("pear", 13), ("apple", 14)]
    shop.put(*puts)
    shop.run("bronze.orders")
    said = r"silver\.seen: at the record .* of key 'pear' the function raised ValueError \(functions\.py, line \d+\)"
    with pytest.raises(HandlerError, match=said) as failed:
        ordered.apply(shop.spark, shop.config, "silver.seen", functions.seen_but_for_thirteen)
    assert "nobody's business" not in str(failed.value)
    assert shop.version("silver.seen") == 0  # the table was made, nothing was written
    shop.run("silver.seen")
    assert saw(shop) == expected(*puts)


def test_a_lost_state_and_wrong_tables_are_refused(shop: Any, lake: MakeLake) -> None:
    shop.put(("apple", 1))
    shop.run("bronze.orders", "silver.seen")
    checkpoint = Path(tables.checkpoint_path(shop.config, "silver.seen"))
    checkpoint.rename(checkpoint.with_name("moved"))
    with pytest.raises(TableError, match="with it the state of every key"):
        shop.run("silver.seen")

    def refused(said: str, **table: Any) -> None:
        with pytest.raises(ConfigError, match=said):
            lake(create=False, tables={"silver.seen": SEEN | table}).run("silver.seen")

    ordered_: Mapping[str, Any] = SEEN["ordered"]
    refused("merge has no place", merge={"keys": ["item"]})
    refused("there is no nowhere:f", ordered=ordered_ | {"function": "nowhere:f"})
    refused("expected columns such as", ordered=ordered_ | {"state": "count of all"})
    refused("is a name of ours", ordered=ordered_ | {"output": "_meta int"})
