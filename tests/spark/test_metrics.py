"""A Spark driver's metrics after real runs."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import pytest
from prometheus_client import REGISTRY
from pyspark.sql import functions as F

import jobs.bronze
from jobs.listening import listening
from jobs.table_metrics import TableMetrics

MakeLake = Callable[..., Any]
AT_S = 1_700_000_000  # when messages made by hand say that they were produced
BRONZE, SILVER = {"table": "bronze.orders"}, {"table": "silver.orders"}
COUNTED = (
    "headrace_table_input_rows_total",
    "headrace_table_micro_batches_total",
    "headrace_table_merge_rows_total",
    "headrace_table_freshness_seconds_count",
    "headrace_table_freshness_seconds_sum",
)


def value(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(name, labels) or 0.0


class Since:
    """Counters less what they were: the registry is the whole process's."""

    def __init__(self) -> None:
        self._before = self._all()

    def __call__(self, name: str, **labels: str) -> float:
        return value(name, **labels) - self._before.get((name, *sorted(labels.items())), 0.0)

    @staticmethod
    def _all() -> dict[tuple[Any, ...], float]:
        samples = [sample for family in REGISTRY.collect() for sample in family.samples if sample.name in COUNTED]
        return {(sample.name, *sorted(sample.labels.items())): sample.value for sample in samples}


def order(number: int, item: str) -> dict[str, Any]:
    return {"item": item, "number": number, "note": None}


def merged(since: Since) -> tuple[float, float, float]:
    kinds = ("inserted", "updated", "copied")
    return tuple(since("headrace_table_merge_rows_total", kind=kind, **SILVER) for kind in kinds)  # type: ignore[return-value]


def test_a_driver_tells_what_its_tables_hold_and_how_its_micro_batches_went(stack: Any, lake: MakeLake) -> None:
    shop, since = lake(shards=1), Since()
    shop.put(("a", 1), ("b", 2), ("a", 3))
    shop.send([(0, "c", None)], value=b"\x00\x00\x00\x00\x01bad", count=1)
    shop.run("bronze.orders", "silver.orders")
    assert value("headrace_table_records", **BRONZE) == 3
    assert value("headrace_table_rejected", **BRONZE) == 1
    assert value("headrace_table_records", **SILVER) == 2  # keys
    assert value("headrace_table_files", **BRONZE) >= 1
    assert value("headrace_table_bytes", **BRONZE) > 0
    assert value("headrace_table_version", **BRONZE) == shop.version()
    assert value("headrace_table_source_version", **SILVER) == shop.version()
    assert value("headrace_table_state_rows", **BRONZE) == 1  # a mark: the other producer has been silent since AT_S
    assert value("headrace_table_state_bytes", **BRONZE) > 50  # its name alone is a UUID
    assert value("headrace_table_behind_messages", **BRONZE) == 0
    assert value("headrace_table_behind_seconds", **BRONZE) == 0
    assert value("headrace_table_behind_records", **SILVER) == 0
    assert value("headrace_table_micro_batch_seconds_total", phase="addBatch", **BRONZE) > 0
    assert value("headrace_table_processed_rows_per_second", **BRONZE) > 0
    assert since("headrace_table_micro_batches_total", **BRONZE) == 1
    assert since("headrace_table_input_rows_total", **BRONZE) == 2
    assert since("headrace_table_input_rows_total", **SILVER) == 4  # rejected ones are read too
    assert merged(since) == (2, 0, 0)
    assert value("headrace_table_committed_timestamp_seconds", **SILVER) > 0
    told = [json.loads(line) for line in (stack.home / "lineage.jsonl").read_text().splitlines()]
    assert {one["eventType"] for one in told if one["job"]["name"] == "silver.orders"} >= {"START", "COMPLETE"}
    shop.put(("b", 4), ("c", 5))
    shop.run("bronze.orders", "silver.orders")
    assert merged(since) == (3, 1, 0)  # c is new, b newer; a lies in another file
    shop.run("bronze.orders", "silver.orders")
    assert merged(since) == (3, 1, 0)


def test_freshness_and_lag_are_told_of_each_micro_batch(lake: MakeLake, monkeypatch: pytest.MonkeyPatch) -> None:
    shop, since = lake(shards=1), Since()
    for number in range(3):
        shop.send([(2 * number, "a", order(number, "a")), (2 * number + 1, "b", order(number, "b"))])
    monkeypatch.setattr(jobs.bronze, "OFFSETS_FIRST_PACKED", 1)
    told: list[tuple[float, ...]] = []
    note = TableMetrics.note_progress

    def spy(tables: TableMetrics, progress: dict[str, Any]) -> None:
        note(tables, progress)
        if progress["name"] == "bronze.orders":
            names = ("behind_messages", "behind_records", "behind_seconds")
            told.append(tuple(value(f"headrace_table_{name}", **BRONZE) for name in names))

    monkeypatch.setattr(TableMetrics, "note_progress", spy)
    began = time.time()
    shop.run("bronze.orders", "silver.orders")
    ended = time.time()
    assert [(messages, records) for messages, records, _ in told] == [(2, 4), (1, 2), (0, 0)]
    for _, records, seconds in told:
        assert (began - AT_S <= seconds <= ended - AT_S) if records else seconds == 0
    for table, micro_batches in (("bronze.orders", 3), ("silver.orders", 1)):
        for kind in ("oldest", "newest"):
            assert since("headrace_table_freshness_seconds_count", table=table, kind=kind) == micro_batches
            mean = since("headrace_table_freshness_seconds_sum", table=table, kind=kind) / micro_batches
            assert began - AT_S <= mean <= ended - AT_S


def test_a_querys_state_and_what_its_watermark_dropped_are_told(lake: MakeLake, tmp_path: Any) -> None:
    tables = {"gold.windows": {"from": "silver.orders", "sql": "windows.sql", "mode": "refresh"}}
    shop = lake(create=False, tables=tables)
    spark, name = shop.spark, "gold.windows"
    for second in (0, 7200, 7210, 5, 7230):  # a file and a micro-batch each; the watermark of one drops from the next but one
        row = spark.createDataFrame([(second,)], "second int").select(F.timestamp_seconds("second").alias("at"))
        row.coalesce(1).write.mode("append").parquet(str(tmp_path / "in"))
    files = spark.readStream.schema("at timestamp").option("maxFilesPerTrigger", 1).parquet(str(tmp_path / "in"))
    counted = files.withWatermark("at", "0 seconds").groupBy(F.window("at", "1 minute")).count()
    with listening(spark, TableMetrics(spark, shop.config, [name]), frozenset([name])):
        query = (
            counted.writeStream.queryName(name)
            .outputMode("update")
            .option("checkpointLocation", str(tmp_path / "checkpoint"))
            .foreachBatch(lambda rows, _: rows.collect())
            .trigger(availableNow=True)
            .start()
        )
        assert query.awaitTermination(120)
    assert value("headrace_table_late_rows_total", table=name) == 1
    assert value("headrace_table_state_rows", table=name) == 1  # the window of 7200, which 7210 and 7230 are in too
    assert value("headrace_table_state_bytes", table=name) > 0
