"""Bronze stops with a sentence that says what to do, and writes nothing, where what is there does not fit."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient

from jobs import tables
from jobs.bronze import BronzeJob
from jobs.commits import BronzeState
from pipeline.errors import ConfigError, InvariantError, StreamConflictError, TableError, TrimmedError, UnknownStreamError
from pipeline.kafka.topics import Topics
from pipeline.reshard.control_log import create_stream

MakeLake = Callable[..., Any]


def order(number: int) -> dict[str, Any]:
    return {"item": "apple", "number": number, "note": None}


@pytest.fixture
def shop(lake: MakeLake) -> Any:
    """A lake with one order in it."""
    made = lake(shards=1)
    made.send([(0, "apple", order(0))])
    made.run()
    return made


def test_a_stream_that_was_not_created_is_named(lake: MakeLake) -> None:
    with pytest.raises(UnknownStreamError, match="headrace stream create"):
        lake(create=False).run()


def test_a_table_that_is_not_configured_is_named(lake: MakeLake) -> None:
    with pytest.raises(ConfigError, match=r"no table 'bronze.other'.*bronze.orders"):
        lake(create=False).run("bronze.other")


def test_a_path_that_holds_something_else_is_refused(lake: MakeLake) -> None:
    shop = lake()
    path = Path(tables.table_path(shop.config, "bronze.orders"))
    path.mkdir(parents=True)
    (path / "holiday.jpg").write_text("not a table")
    with pytest.raises(TableError, match="is no Delta table"):
        shop.run()


def test_another_delta_table_is_refused(lake: MakeLake) -> None:
    shop = lake()
    path = tables.table_path(shop.config, "bronze.orders")
    shop.spark.range(3).write.format("delta").save(path)
    with pytest.raises(TableError, match=r"headrace.table is 'not set'"):
        shop.run()
    assert shop.spark.read.format("delta").load(path).count() == 3


def test_the_spark_checkpoint_of_another_table_is_refused(shop: Any) -> None:
    marker = shop.checkpoint / "headrace.json"
    marker.write_text(json.dumps(json.loads(marker.read_text()) | {"table": "bronze.others"}))
    (shop.checkpoint / ".headrace.json.crc").unlink()
    with pytest.raises(TableError, match=r"belongs to table bronze.others"):
        shop.run()


def test_a_deleted_table_with_its_old_spark_checkpoint_is_refused(shop: Any) -> None:
    shutil.rmtree(tables.table_path(shop.config, "bronze.orders"))
    with pytest.raises(TableError, match="delete the checkpoint too"):
        shop.run()


def test_an_older_spark_checkpoint_is_refused_before_delta_skips_new_rows(shop: Any) -> None:
    old = shop.folder / "old"
    shutil.copytree(shop.checkpoint, old)
    shop.send([(1, "apple", order(1))])
    shop.run()
    shutil.rmtree(shop.checkpoint)
    shutil.copytree(old, shop.checkpoint)
    shop.send([(2, "apple", order(2))])
    with pytest.raises(TableError, match=r"is older than bronze\.orders"):
        shop.run()
    shutil.rmtree(shop.checkpoint)  # what the message says
    shop.run()
    assert shop.numbers() == [0, 1, 2]


def test_the_spark_checkpoint_of_another_query_is_refused(shop: Any) -> None:
    metadata = shop.checkpoint / "metadata"
    metadata.write_text(json.dumps({"id": "11111111-2222-3333-4444-555555555555"}))
    (shop.checkpoint / ".metadata.crc").unlink()
    with pytest.raises(TableError, match="is of another query"):
        shop.run()


@pytest.mark.parametrize("whole", [True, False])
def test_a_stream_whose_topics_were_deleted_and_created_again_is_refused(shop: Any, whole: bool) -> None:
    config = shop.config
    topics = Topics(config.connection)
    topics.delete([shop.stream, f"{shop.stream}.control"] if whole else [shop.stream])
    if whole:
        create_stream(config.connection, config.stream(shop.stream))
    else:
        deadline = time.monotonic() + 30
        while not topics.create(shop.stream, 1, {}):  # deleting takes a moment
            assert time.monotonic() < deadline
            time.sleep(0.05)
    for _ in range(2):
        shop.produce(0, b"s0", b"as long a log as before", [])
    with pytest.raises(StreamConflictError, match="deleted and created again"):
        shop.run()


def test_records_that_retention_removed_unread_stop_the_table(shop: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    place = (shop.stream, 0)
    monkeypatch.setattr("jobs.bronze.bounds", lambda *_: {place: (5, 9)})
    with pytest.raises(TrimmedError, match="4 offsets were never read"):
        shop.run()


def test_records_that_go_while_the_query_starts_stop_it_and_are_not_skipped(shop: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(1, 6):
        shop.send([(number, "apple", order(number))])
    place = (shop.stream, 0)
    monkeypatch.setattr("jobs.bronze.bounds", lambda *_: {place: (0, 6)})  # looked at just before
    admin = AdminClient({"bootstrap.servers": shop.config.connection.bootstrap})
    [gone] = admin.delete_records([TopicPartition(*place, 4)]).values()
    assert gone.result(30).low_watermark == 4
    with pytest.raises(TrimmedError, match="no longer has records that were not read yet") as raised:
        shop.run()
    assert "failOnDataLoss" not in str(raised.value)
    assert shop.numbers() == [0]


def test_a_lost_commit_with_the_positions_is_refused(shop: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    log = Path(tables.table_path(shop.config, "bronze.orders")) / "_delta_log"
    assert tables.bronze_state(shop.spark, str(log.parent)) != BronzeState()
    for version in (0, 1):
        (log / f"{version:020d}.json").rename(log / f"{version + 5:020d}.json")
        text = (log / f"{version + 5:020d}.json").read_text()
        (log / f"{version + 5:020d}.json").write_text(text.replace("userMetadata", "lost"))
    with pytest.raises(TableError, match="no longer has the commit"):
        tables.bronze_state(shop.spark, str(log.parent))


def test_a_commit_that_another_process_wrote_over_is_not_counted_as_done(shop: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    append = BronzeJob._append

    def overwritten(job: BronzeJob, *arguments: Any) -> None:
        append(job, *arguments)
        log = Path(tables.table_path(shop.config, "bronze.orders")) / "_delta_log"
        newest = max(log.glob("*.json"))
        newest.write_text('{"commitInfo":{"timestamp":0,"operation":"OPTIMIZE","operationParameters":{}}}\n')
        (log / f".{newest.name}.crc").unlink(missing_ok=True)  # Hadoop's sum of the file as it was

    monkeypatch.setattr(BronzeJob, "_append", overwritten)
    shop.send([(1, "apple", order(1))])
    with pytest.raises(InvariantError, match="the newest commit is not its own"):
        shop.run()
