"""What a micro-batch does not wait for: seen by what is asked of the JVM and when, since times are noisy."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from jobs.bronze import BronzeJob
from jobs.decode import raw_columns
from jobs.log_ahead import LogAhead
from jobs.run import run_tables


def test_functions_of_columns_are_looked_up_once(spark: SparkSession, monkeypatch: pytest.MonkeyPatch) -> None:
    def make() -> None:
        F.concat(F.col("a"), F.lit(1)).alias("b")

    make()
    client: Any = spark._jvm._gateway_client  # type: ignore[union-attr]
    asked: list[str] = []
    send = client.send_command

    def noted(command: str, *more: Any, **named: Any) -> Any:
        asked.append(command)
        return send(command, *more, **named)

    monkeypatch.setattr(client, "send_command", noted)
    make()
    assert asked  # it is this client that was asked
    assert [command for command in asked if command.startswith("r\n")] == []  # py4j's reflection


def test_columns_are_made_without_a_stack_trace_of_each(spark: SparkSession) -> None:
    made: Any = (F.col("a") + 1)._jc  # type: ignore[attr-defined]
    assert made.node().origin().stackTrace().isEmpty()


def test_a_micro_batch_of_many_records_generates_no_code_anew(spark: SparkSession) -> None:
    session = spark.newSession()
    session.conf.set("spark.sql.codegen.wholeStage", "true")
    session.conf.set("spark.sql.codegen.factoryMode", "CODEGEN_ONLY")
    kafka = "topic string, partition int, offset long, timestamp timestamp, key binary, value binary, "
    row = ("t", 0, 0, datetime.now(UTC), b"k", b"v", [("x-stamp", b"s")])
    messages = session.createDataFrame([row], kafka + "headers array<struct<key: string, value: binary>>")
    jvm: Any = spark._jvm
    compiled = jvm.org.apache.spark.metrics.source.CodegenMetrics.METRIC_COMPILATION_TIME()
    counts, times = [compiled.getCount()], []
    for _ in range(2):
        (kept,) = raw_columns(messages).collect()
        counts.append(compiled.getCount())
        times.append(kept["ingested_at"].astimezone(UTC))
    assert counts[0] < counts[1] == counts[2]
    assert datetime.now(UTC) - timedelta(minutes=1) < times[0] < times[1]


def test_the_state_of_a_log_is_computed_when_it_was_begun_ahead_and_a_missing_table_harms_nobody(
    spark: SparkSession, tmp_path: Path
) -> None:
    path = str(tmp_path / "table")
    spark.range(3).write.format("delta").save(path)
    jvm: Any = spark._jvm
    delta_log = jvm.org.apache.spark.sql.delta.DeltaLog.forTable(spark._jsparkSession, path)
    assert not delta_log.unsafeVolatileSnapshot().stateReconstructionTriggered()
    for at in (path, str(tmp_path / "nothing")):
        ahead = LogAhead(spark, at)
        ahead.begin()
        ahead.close()  # waits for it
    assert delta_log.unsafeVolatileSnapshot().stateReconstructionTriggered()


def test_bronze_has_the_log_read_before_each_write_and_after_it_where_another_may_follow(
    lake: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[str] = []
    monkeypatch.setattr(LogAhead, "begin", lambda self: events.append("ahead"))
    append = BronzeJob._append

    def noted(self: BronzeJob, *given: Any) -> None:
        events.append("append")
        append(self, *given)

    monkeypatch.setattr(BronzeJob, "_append", noted)
    shop = lake()
    for number in range(2):
        shop.put(("apple", number))
        shop.run()
    assert events == ["ahead", "append"] * 2
    shop.put(("apple", 2))
    del events[:]
    stop = threading.Event()
    run_tables(shop.spark, shop.config, ["bronze.orders"], "100 ms", stop, lambda _: stop.set())
    assert events == ["ahead", "append", "ahead"]
