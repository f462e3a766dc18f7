"""A Spark checkpoint made anew from the table's newest commit: no record lost or repeated, whatever happened before."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from jobs.bronze import BronzeJob
from jobs.rebuild_checkpoint import rebuild
from jobs.run import run_tables
from pipeline.errors import ConfigError, InvariantError, TableError

MakeLake = Callable[..., Any]
REPOSITORY = Path(__file__).parents[2]
TABLE = "bronze.orders"


def order(number: int) -> dict[str, Any]:
    return {"item": "apple", "number": number, "note": None}


def query_id(shop: Any) -> str:
    return str(json.loads((shop.checkpoint / "metadata").read_text())["id"])


@pytest.fixture
def shop(lake: MakeLake) -> Any:
    """A lake with two rows and a rejected message, which has no marks that would keep it from coming twice."""
    made = lake(shards=1)
    made.send([(0, "apple", order(0)), (1, "apple", order(1))])
    made.produce(0, b"x", b"not ours", [])
    made.run()
    return made


def test_a_deleted_checkpoint_is_made_anew_by_the_command_and_reading_goes_on(shop: Any) -> None:
    before = query_id(shop)
    shutil.rmtree(shop.checkpoint)
    done = subprocess.run(
        [sys.executable, "-m", "pipeline.cli.main", "table", "rebuild-checkpoint", TABLE, "--json"],
        env=os.environ | {"PYTHONPATH": str(REPOSITORY), "HEADRACE_CONFIG": str(shop.folder / "headrace.yml")},
        text=True, capture_output=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["positions"] == {shop.stream: {"0": 2}}
    assert (told["moved_to"], told["query"], told["checkpoint"]) == (None, query_id(shop), str(shop.checkpoint))
    shop.send([(1, "apple", order(1)), (2, "apple", order(2))])
    shop.run()
    assert query_id(shop) == told["query"] != before
    assert shop.numbers() == [0, 1, 2]
    assert len(shop.rejected()) == 1
    assert (shop.totals()["messages"], shop.totals()["repeats"]) == (3, 1)


def test_rows_are_there_once_when_it_died_between_deltas_commit_and_sparks(
    shop: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(*_: Any) -> None:
        raise InvariantError("killed by the test")

    for number in (2, 3):  # once under the old checkpoint, once under the one made from the table
        shop.produce(0, b"x", b"not ours", [])
        shop.send([(number, "apple", order(number))])
        with monkeypatch.context() as patch:
            patch.setattr(BronzeJob, "_committed", die)
            with pytest.raises(InvariantError):
                shop.run()
        made = rebuild(shop.spark, shop.config, TABLE)
        assert made.moved_to is not None
        assert (Path(made.moved_to) / "offsets").is_dir()
        assert made.positions == {shop.stream: {0: 2 * number}}
    shop.send([(4, "apple", order(4))])
    shop.run()
    assert shop.numbers() == [0, 1, 2, 3, 4]
    assert len(shop.rejected()) == 3
    assert sorted(path.name for path in shop.checkpoint.parent.iterdir()) == [
        "orders", "orders.replaced-1", "orders.replaced-2",
    ]  # fmt: skip


def test_a_running_query_stops_before_it_writes_under_a_checkpoint_made_anew(shop: Any) -> None:
    stop = threading.Event()
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(run_tables, shop.spark, shop.config, [TABLE], "100 ms", stop)
        try:
            shop.send([(2, "apple", order(2))])
            deadline = time.monotonic() + 60
            while not (shop.checkpoint / "commits" / "1").exists():
                assert not running.done()
                assert time.monotonic() < deadline, "the query did not run"
                time.sleep(0.05)
            rebuild(shop.spark, shop.config, TABLE)
            shop.send([(3, "apple", order(3))])
            with pytest.raises(TableError, match=r"checkpoint of bronze\.orders was replaced or removed"):
                running.result(timeout=60)
        finally:
            stop.set()
    assert shop.numbers() == [0, 1, 2]
    rebuild(shop.spark, shop.config, TABLE)  # what the message says
    shop.run()
    assert shop.numbers() == [0, 1, 2, 3]


def test_a_table_without_positions_has_nothing_to_make_a_checkpoint_from(lake: MakeLake) -> None:
    shop = lake()
    with pytest.raises(TableError, match=r"holds nothing yet.*headrace run bronze\.orders"):
        rebuild(shop.spark, shop.config, TABLE)
    with pytest.raises(ConfigError, match="only bronze tables do"):
        rebuild(shop.spark, shop.config, "silver.orders")
