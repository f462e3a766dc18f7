"""Maintenance beside jobs: nothing is lost, repeated or unproven by it, and what somebody still needs is not removed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import REGISTRY

import jobs.run
from jobs import tables
from jobs.audit import audit
from jobs.maintain import maintain_every, maintain_table
from jobs.maintenance import readers
from jobs.maintenance.statements import session
from jobs.maintenance.vacuum import vacuum
from jobs.run import run_tables
from jobs.supervise import Reaction, reaction
from jobs.timetravel.history import history
from pipeline.config.maintenance import Maintenance
from pipeline.errors import ConfigError, TableError
from tests.spark.rows import arrive, expecting, with_bronze

MakeLake = Callable[..., Any]
REPOSITORY = Path(__file__).parents[2]
KEEP = {"rows": "30d", "dead_letters": "1d"}
NO_RETENTION = "'delta.deletedFileRetentionDuration' = 'interval 0 hours'"
BOTH = ("bronze.orders", "silver.orders")


def order(number: int, item: str = "apple") -> dict[str, Any]:
    return {"item": item, "number": number, "note": None}


def in_days(days: int) -> datetime:
    return datetime.now(UTC) + timedelta(days=days)


def path(shop: Any, table: str = "bronze.orders") -> str:
    return tables.table_path(shop.config, table)


def findings(shop: Any) -> list[Any]:
    return [finding for one in audit(shop.spark, shop.config, shop.stream) for finding in one.findings]


def metric(name: str, table: str) -> float:
    return REGISTRY.get_sample_value(name, {"table": table}) or 0.0


def wait_until(condition: Callable[[], bool], what: str, seconds: float = 200) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.1)


@pytest.fixture(scope="module")
def kept(new_lake: MakeLake, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Two micro-batches, a dead letter in the first, all merged into silver."""
    shop = new_lake(tmp_path_factory.mktemp("kept"), shards=1)
    shop.table_options["bronze.orders"] = {"from": shop.stream, "cluster_by": ["item"], "keep": KEEP}
    shop.send([(0, "apple", order(10)), (1, "pear", order(11, "pear"))], producer="p")
    shop.send([(2, "plum", None)], producer="p", value=b"\x00rubbish")
    shop.run(*BOTH)
    shop.send([(0, "fig", order(12, "fig"))], producer="q")  # by hand too: at today's time the marks of p would go
    shop.run(*BOTH)
    return shop


def test_readers_are_known_by_name_and_by_their_spark_checkpoints_and_bad_ones_are_refused(kept: Any) -> None:
    spark, config = kept.spark, kept.config
    (silver,) = readers.readers_of(spark, config, "bronze.orders")
    assert (silver.name, silver.version, silver.kind) == ("silver.orders", kept.version(), "stream")
    readers.register(spark, config, "silver.orders", "bi", 1)
    readers.register(spark, config, "silver.orders", "bi", 2)
    assert [(one.name, one.version) for one in readers.readers_of(spark, config, "silver.orders")] == [("bi", 2)]
    for name, version, error in (("../x", 1, ConfigError), ("bi", 99, TableError)):
        with pytest.raises(error):
            readers.register(spark, config, "silver.orders", name, version)
    readers.forget(spark, config, "silver.orders", "bi")
    with pytest.raises(TableError, match="no registered reader 'bi'"):
        readers.forget(spark, config, "silver.orders", "bi")


def test_what_is_old_leaves_what_is_needed_stays_and_the_audit_accounts_for_all_of_it(kept: Any) -> None:
    totals, merged = kept.totals(), kept.numbers("silver.orders")
    maintain = partial(maintain_table, kept.spark, kept.config, "bronze.orders")

    soon = maintain(in_days(2))
    assert (soon.dead_letters_expired, soon.rows_deleted, soon.refused) == (1, 0, None)
    assert soon.files_compacted >= 2
    assert soon.files == soon.files_made == metric("headrace_table_files", "bronze.orders")
    assert metric("headrace_table_maintained_timestamp_seconds", "bronze.orders") > time.time() - 300
    (dead,) = kept.rejected()
    assert dead["raw"] is None
    assert dead["reason"]
    assert (kept.totals(), kept.numbers()) == (totals, [10, 11, 12])
    version = kept.version()
    maintain(in_days(2))
    assert kept.version() == version, "nothing was to do, and a version was made"

    kept.table_options["bronze.orders"]["cluster_by"] = ["number"]
    late = maintain_table(kept.spark, kept.config, "bronze.orders", in_days(31))
    assert late.rows_deleted == 4
    assert late.layout_changed
    assert late.refused is not None
    assert "silver.orders stands at version" in late.refused
    detail = kept.spark.sql(f"DESCRIBE DETAIL delta.`{path(kept)}`").collect()[0]
    assert detail["clusteringColumns"] == ["number"]
    assert kept.numbers() == []

    kept.send([(0, "apple", order(10)), (1, "pear", order(11, "pear"))], producer="p")
    kept.send([(3, "kiwi", order(13, "kiwi"))], producer="p")
    kept.run(*BOTH)
    assert kept.numbers() == [13]
    assert kept.numbers("silver.orders") == sorted([*merged, 13])
    assert findings(kept) == []

    with pytest.raises(TableError, match="below its safe retention"):
        vacuum(kept.spark, kept.config, "bronze.orders", timedelta(0), in_days(0))
    kept.spark.sql(f"ALTER TABLE delta.`{path(kept)}` SET TBLPROPERTIES ({NO_RETENTION})")
    readers.register(kept.spark, kept.config, "bronze.orders", "bi", 1)
    with pytest.raises(TableError, match=r"bi stands at version 1 .* `headrace table forget bronze.orders bi`"):
        vacuum(kept.spark, kept.config, "bronze.orders", timedelta(0), in_days(0))
    readers.forget(kept.spark, kept.config, "bronze.orders", "bi")
    kept.run("silver.orders")
    assert vacuum(kept.spark, kept.config, "bronze.orders", timedelta(0), in_days(0)).files >= 4
    kept.put(("melon", 14))
    kept.run(*BOTH)
    assert kept.numbers() == [13, 14]
    assert findings(kept) == []

    kept.spark.sql(f"UPDATE delta.`{path(kept)}` SET number = 99 WHERE number = 14")
    kept.put(("date", 15))
    with pytest.raises(TableError, match=r"by another hand \(UPDATE\)"):
        kept.run(*BOTH)


def test_running_jobs_go_on_while_their_tables_are_compacted_and_lose_old_rows(
    lake: MakeLake, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop = lake(shards=1)
    shop.table_options["bronze.orders"] = {"from": shop.stream, "keep": KEEP}
    shop.put(("item-0", 0))
    shop.run(*BOTH)
    config = shop.config.model_copy(update={"maintenance": Maintenance(every=timedelta(minutes=1))})
    often: list[timedelta] = []

    def every(spark: Any, config: Any, names: Any, interval: timedelta, end: threading.Event) -> None:
        often.append(interval)
        maintain_every(spark, config, names, timedelta(milliseconds=300), end)

    monkeypatch.setattr(jobs.run, "maintain_every", every)

    def compacted() -> bool:
        return "OPTIMIZE" in {one.operation for one in history(shop.spark, path(shop))}

    stop = threading.Event()
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(run_tables, shop.spark, config, BOTH, "200 ms", stop)
        try:
            for turn in range(1, 4):
                shop.put(*((f"item-{n}", turn) for n in range(4)))
                follows = lambda turn=turn: shop.numbers("silver.orders") == [turn] * 4  # noqa: E731
                wait_until(lambda follows=follows: running.done() or follows(), "silver does not follow")
                if turn == 2:
                    maintain_table(shop.spark, shop.config, "bronze.orders", in_days(31))
            wait_until(lambda: running.done() or compacted(), "nothing was compacted")
        finally:
            stop.set()
        running.result(timeout=120)
    assert often == [timedelta(minutes=1)]
    shop.run(*BOTH)
    assert shop.numbers("silver.orders") == [3] * 4
    assert len(shop.numbers()) < 1 + 3 * 4
    assert shop.totals()["records"] == 1 + 3 * 4
    assert findings(shop) == []


def test_a_merge_that_lost_against_a_compaction_is_tried_again_and_one_that_lost_against_a_writer_is_not(
    spark: Any, tmp_path: Path
) -> None:
    def lost_against(name: str, statement: str, own: Any) -> str:
        table, flag = f"delta.`{tmp_path / name}`", tmp_path / f"{name}.flag"
        for number in range(2):
            row = spark.createDataFrame([(number, 0)], "k int, v int").coalesce(1)
            row.write.format("delta").mode("append").save(str(tmp_path / name))

        def wait(pages: Any) -> Any:  # in a worker: the MERGE has read its version of the table by now
            (Path(str(flag)).parent / f"{flag.name}.reached").touch()
            while not Path(str(flag)).exists():
                time.sleep(0.05)
            yield from pages

        source = spark.range(2).selectExpr("cast(id AS int) k", "1 v").coalesce(1).mapInArrow(wait, "k int, v int")
        source.createOrReplaceTempView(f"source_{name}")
        merge = f"MERGE INTO {table} t USING source_{name} s ON t.k = s.k WHEN MATCHED THEN UPDATE SET v = s.v"
        with ThreadPoolExecutor(1) as pool:
            merging = pool.submit(lambda: spark.sql(merge).collect())
            wait_until(lambda: merging.done() or (tmp_path / f"{name}.flag.reached").exists(), "the merge does not read")
            own.sql(statement.format(table)).collect()
            flag.touch()
            return str(merging.exception(timeout=120))

    assert reaction(lost_against("compacted", "OPTIMIZE {}", session(spark, {"step": "compaction"})), None) is Reaction.RETRY
    assert reaction(lost_against("written", "UPDATE {} SET v = 7 WHERE k = 0", spark), None) is Reaction.STOP


def test_the_tables_beside_a_table_are_tidied_with_it_and_keep_their_rows(lake: MakeLake) -> None:
    shop = with_bronze(lake())
    expecting(shop, {"rule": "number < 10", "name": "small", "on_fail": "quarantine"})
    beside = ("silver.orders__quarantine", "quality.results")
    for micro_batch in range(3):
        arrive(shop, (2 * micro_batch, f"good{micro_batch}", 1, None), (2 * micro_batch + 1, f"large{micro_batch}", 10, None))
        shop.run("silver.orders")
    for table in ("silver.orders", *beside):
        shop.spark.sql(f"ALTER TABLE delta.`{path(shop, table)}` SET TBLPROPERTIES ({NO_RETENTION})")

    done = maintain_table(shop.spark, shop.config, "silver.orders", files_keep=timedelta(0))

    assert (done.companion_files_compacted, done.companion_files_made) == (6, 2)
    for table in beside:
        assert len(list(Path(path(shop, table)).glob("*.parquet"))) == 1, table
        assert shop.spark.read.format("delta").load(path(shop, table)).count() == 3
    again = maintain_table(shop.spark, shop.config, "silver.orders", files_keep=timedelta(0))
    assert (again.companion_files_compacted, again.files_vacuumed) == (0, 0)
    arrive(shop, (6, "large3", 10, None))
    shop.run("silver.orders")
    assert shop.spark.read.format("delta").load(path(shop, beside[0])).count() == 4


def test_the_command_prints_what_was_done(kept: Any) -> None:
    command = [sys.executable, "-m", "pipeline.cli.main", "--config", str(kept.folder / "headrace.yml"), "maintain", "--json"]
    done = subprocess.run(
        command, env=os.environ | {"PYTHONPATH": str(REPOSITORY)}, text=True, capture_output=True, timeout=250, check=False
    )
    assert done.returncode == 0, done.stderr
    bronze, silver = json.loads(done.stdout)
    assert [(one["table"], one["refused"], one["skipped"]) for one in (bronze, silver)] == [(t, None, None) for t in BOTH]
    assert bronze["files"] >= 1
