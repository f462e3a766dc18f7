"""Time travel: what a table was, what differs, and going back without losing or repeating anything."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient

from jobs import table_versions, tables
from jobs.audit import audit
from jobs.bronze import BronzeJob
from jobs.checkpoint import SparkCheckpoint
from jobs.maintenance.notes import write_note
from jobs.maintenance.retention import NOTE, Retention
from jobs.maintenance.vacuum import vacuum
from jobs.mode import parse_mode
from jobs.timetravel import diff as differing
from jobs.timetravel.diff import diff
from jobs.timetravel.fence import fence
from jobs.timetravel.restore import restore
from pipeline.errors import ConfigError, HeadraceError, TableError, TrimmedError

MakeLake = Callable[..., Any]
BOTH = ("bronze.orders", "silver.orders")


def path(shop: Any, table: str) -> str:
    return tables.table_path(shop.config, table)


def command(shop: Any, *arguments: str) -> Any:
    """What `headrace table …` prints, by the same parser, in the Spark that is there."""
    return table_versions.run(shop.spark, shop.config, table_versions._parser().parse_args(list(arguments)))


def findings(shop: Any) -> list[Any]:
    return [finding for one in audit(shop.spark, shop.config, shop.stream) for finding in one.findings]


def test_a_restored_bronze_table_reads_again_what_it_lacks_exactly_once(lake: MakeLake) -> None:
    shop = lake(shards=1)
    shop.put(("apple", 1))
    shop.run(*BOTH)
    first, totals = shop.version(), shop.totals()
    shop.put(("pear", 2), ("apple", 3))
    shop.run(*BOTH)

    query = SparkCheckpoint(shop.spark, str(shop.checkpoint)).query_id()
    fence(shop.spark, path(shop, "bronze.orders"), "bronze.orders", str(query))
    shop.put(("plum", 4))
    with pytest.raises(TableError, match="is being restored to an older version"):
        shop.run("bronze.orders")
    assert shop.numbers() == [1, 2, 3], "a fenced query wrote"

    done = restore(shop.spark, shop.config, "bronze.orders", str(first))
    assert (shop.numbers(), shop.totals()) == ([1], totals)
    assert len(done.checkpoints) == 2
    shop.run(*BOTH)
    assert shop.numbers() == [1, 2, 3, 4]
    assert shop.numbers("silver.orders") == [2, 3, 4]
    assert findings(shop) == []
    newest = command(shop, "history", "bronze.orders", "--max", "2")[-1]
    assert (newest["operation"], newest["by"]) == ("RESTORE", f"restore to version {first}")

    admin = AdminClient({"bootstrap.servers": shop.config.connection.bootstrap})
    for future in admin.delete_records([TopicPartition(shop.stream, 0, 2)]).values():
        future.result(30)
    before = shop.version()
    with pytest.raises(TrimmedError, match=r"would read .* again from offset 1, and Kafka's retention has removed"):
        restore(shop.spark, shop.config, "bronze.orders", str(first))
    assert shop.version() == before


def test_a_query_that_runs_while_its_table_is_restored_stops_and_the_next_one_makes_it_whole(lake: MakeLake) -> None:
    shop = lake(shards=1)
    shop.put(("apple", 1))
    shop.run(*BOTH)
    first = shop.version()
    shop.put(("pear", 2))
    job = BronzeJob(shop.spark, shop.config, "bronze.orders")
    try:
        query = job.start(parse_mode("200 ms"))
        query.processAllAvailable()
        assert shop.numbers() == [1, 2]
        restore(shop.spark, shop.config, "bronze.orders", str(first))
        shop.put(("plum", 3))
        with pytest.raises(Exception):  # noqa: B017 - Spark's own, or ours behind it: it must only not go on
            query.awaitTermination(120) or pytest.fail("it goes on")
        assert isinstance(job.failure, HeadraceError | None)
    finally:
        job.close()
    assert shop.numbers() == [1]
    shop.run(*BOTH)
    assert shop.numbers() == [1, 2, 3]
    assert findings(shop) == []


def test_a_restored_silver_table_merges_all_of_bronze_again_and_differences_are_told_by_key(
    lake: MakeLake, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop = lake(shards=1)
    silver = path(shop, "silver.orders")
    shop.put(("apple", 1), ("pear", 2))
    shop.run(*BOTH)
    shop.spark.sql(f"ALTER TABLE delta.`{silver}` SET TBLPROPERTIES ('delta.enableChangeDataFeed' = 'true')")
    good = shop.version("silver.orders")
    shop.put(("apple", 3), ("plum", 4))
    shop.run(*BOTH)
    shop.spark.sql(f"DELETE FROM delta.`{silver}` WHERE item = 'pear'")
    shop.spark.sql(f"UPDATE delta.`{silver}` SET number = 77 WHERE item = 'plum'")

    def differences() -> tuple[Any, ...]:
        found = diff(shop.spark, shop.config, "silver.orders", good, shop.version("silver.orders"))
        return found.feed, found.added, found.removed, found.changed, found.samples

    samples = {
        "added": [{"item": "plum", "number": 77, "note": None}],
        "removed": [{"item": "pear", "number": 2, "note": None}],
        "changed": [{"item": "apple", "before": {"number": 1}, "after": {"number": 3}}],
    }
    assert differences() == (True, 1, 1, 1, samples)
    with monkeypatch.context() as patch:
        patch.setattr(differing, "_fed", lambda *_: None)
        assert differences() == (False, 1, 1, 1, samples)

    versions = command(shop, "history", "silver.orders")
    at_good = next(one["at"] for one in versions if one["version"] == good)
    done = command(shop, "restore", "silver.orders", at_good)
    assert done["version"] == good
    assert shop.numbers("silver.orders") == [1, 2]
    shop.run(*BOTH)
    assert shop.numbers("silver.orders") == [2, 3, 4]
    assert findings(shop) == []
    merged = command(shop, "history", "silver.orders", "--max", "1")[0]
    assert (merged["operation"], merged["rows_inserted"], merged["rows_updated"]) == ("MERGE", 1, 1)

    bronze = command(shop, "diff", "bronze.orders", "1")
    assert (bronze["added"], bronze["removed"], bronze["changed"]) == (2, 0, 0)
    assert bronze["keys"] == ("topic", "partition", "offset", "index")

    cutoff = datetime.now(UTC) + timedelta(hours=1)
    write_note(shop.spark, path(shop, "bronze.orders"), NOTE, Retention({(shop.stream, 0): 1}, cutoff).to_json())
    with pytest.raises(TableError, match=r"bronze.orders has deleted rows by age that were merged after it"):
        restore(shop.spark, shop.config, "silver.orders", str(good))


def test_a_version_that_is_gone_is_refused_and_nothing_is_changed(lake: MakeLake) -> None:
    shop = lake(shards=1)
    for number in (1, 2):
        shop.put(("apple", number))
        shop.run(*BOTH)
    silver = path(shop, "silver.orders")
    shop.spark.sql(f"ALTER TABLE delta.`{silver}` SET TBLPROPERTIES ('delta.deletedFileRetentionDuration' = 'interval 0 hours')")
    shop.spark.sql(f"OPTIMIZE delta.`{silver}`")
    vacuum(shop.spark, shop.config, "silver.orders", timedelta(0), datetime.now(UTC))
    before = shop.version("silver.orders")
    for which, error, said in (
        ("1", TableError, r"version 1 of silver.orders is gone: VACUUM has removed files of it"),
        ("99", TableError, r"version 99 of silver.orders is not there yet: its log has versions 0 to"),
        ("2001-01-01", TableError, "no version from 2001-01-01 or before"),
        ("yesterday", ConfigError, "expected a version such as 12, or a time"),
    ):
        with pytest.raises(error, match=said):
            restore(shop.spark, shop.config, "silver.orders", which)
    with pytest.raises(TableError, match="cannot be compared"):
        diff(shop.spark, shop.config, "silver.orders", 1, before)
    assert shop.version("silver.orders") == before
    assert (shop.folder / "lake" / "_checkpoints" / "silver" / "orders").exists()
    shop.table_options["silver.visits"] = {"from": "bronze.orders", "ordered": {"state": "n long", "output": "n long"}}
    with pytest.raises(TableError, match=r"silver.visits follows its rows one by one and would count those that are read again"):
        restore(shop.spark, shop.config, "bronze.orders", "1")
