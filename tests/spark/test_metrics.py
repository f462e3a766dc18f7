"""A Spark driver's metrics after a real run."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from prometheus_client import REGISTRY


def value(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(name, labels) or 0.0


def test_a_driver_tells_what_its_tables_hold_and_how_its_micro_batches_went(
    stack: Any, lake: Callable[..., Any]
) -> None:
    bronze, silver = {"table": "bronze.orders"}, {"table": "silver.orders"}
    counted = ("headrace_table_input_rows_total", "headrace_table_micro_batches_total")
    before = {name: value(name, **bronze) for name in counted}
    shop = lake(shards=1)
    shop.put(("a", 1), ("b", 2), ("a", 3))
    shop.send([(0, "c", None)], value=b"\x00\x00\x00\x00\x01bad", count=1)
    shop.run("bronze.orders", "silver.orders")
    assert value("headrace_table_records", **bronze) == 3
    assert value("headrace_table_rejected", **bronze) == 1
    assert value("headrace_table_records", **silver) == 2  # keys
    assert value("headrace_table_files", **bronze) >= 1
    assert value("headrace_table_bytes", **bronze) > 0
    assert value("headrace_table_version", **bronze) == shop.version()
    assert value("headrace_table_behind_messages", **bronze) == 0
    assert value("headrace_table_micro_batch_seconds_total", phase="addBatch", **bronze) > 0
    assert value("headrace_table_micro_batches_total", **bronze) > before["headrace_table_micro_batches_total"]
    assert value("headrace_table_input_rows_total", **bronze) == before["headrace_table_input_rows_total"] + 2
    assert value("headrace_table_committed_timestamp_seconds", **silver) > 0
    told = [json.loads(line) for line in (stack.home / "lineage.jsonl").read_text().splitlines()]
    assert {one["eventType"] for one in told if one["job"]["name"] == "silver.orders"} >= {"START", "COMPLETE"}
