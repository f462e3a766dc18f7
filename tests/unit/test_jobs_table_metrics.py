"""What offsets and commits say, as Spark and Delta write them; runs are in tests/spark/test_metrics.py."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import pytest
from prometheus_client import REGISTRY

from jobs.commits import parse_commit
from jobs.listening import Listener
from jobs.table_metrics import TableMetrics, merged_rows, messages_behind, versions_read
from pipeline import metrics


def delta_offset(version: int, index: int) -> dict[str, Any]:
    return {"sourceVersion": 1, "reservoirId": "x", "reservoirVersion": version, "index": index}


@pytest.mark.parametrize(
    ("start", "end", "versions"),
    [
        (None, delta_offset(4, -1), [0, 1, 2, 3]),
        (delta_offset(4, -1), delta_offset(6, -1), [4, 5]),
        (delta_offset(4, -1), delta_offset(5, 2), [4, 5]),  # ends inside version 5
        (delta_offset(5, 2), delta_offset(6, -1), [5]),
        (delta_offset(6, -1), delta_offset(6, -1), []),
    ],
)
def test_the_versions_that_a_micro_batch_covers_are_told_by_its_offsets(start: Any, end: Any, versions: list[int]) -> None:
    found = versions_read(start, end)
    assert found is not None
    assert list(found) == versions


@pytest.mark.parametrize("end", [None, {"t": {"0": 5}}, 7, "log-3"])
def test_offsets_of_other_sources_name_no_versions(end: Any) -> None:
    assert versions_read(None, end) is None


def test_messages_behind_are_those_between_the_micro_batch_and_the_log_in_all_partitions() -> None:
    def source(end: Any, latest: Any) -> Any:
        return {"endOffset": end, "latestOffset": latest}

    assert messages_behind(source({"t": {"0": 5, "1": 7}}, {"t": {"0": 9, "1": 7}})) == 4
    assert messages_behind(source(delta_offset(1, -1), None)) is None
    assert messages_behind(source(None, None)) is None


def test_a_query_that_waits_is_not_behind_and_has_no_rate() -> None:
    config: Any = SimpleNamespace(table=lambda name: SimpleNamespace(layer=name.partition(".")[0]))
    told = TableMetrics(None, config, [])  # type: ignore[arg-type]  # no table is there yet: Spark is not asked
    listener = Listener(told, frozenset(["bronze.idle"]))
    gauges = [
        metrics.TABLE_INPUT_RATE, metrics.TABLE_PROCESSED_RATE, metrics.TABLE_BEHIND, metrics.TABLE_BEHIND_RECORDS,
        metrics.TABLE_BEHIND_SECONDS,
    ]  # fmt: skip
    for gauge in gauges:
        gauge.labels("bronze.idle").set(5)
    names = [f"{family.name}" for gauge in gauges for family in gauge.collect()]
    listener.onQueryStarted(SimpleNamespace(name="bronze.idle", runId="r1"))
    listener.onQueryIdle(SimpleNamespace(runId="another"))
    assert {REGISTRY.get_sample_value(name, {"table": "bronze.idle"}) for name in names} == {5}
    listener.onQueryIdle(SimpleNamespace(runId="r1"))
    assert {REGISTRY.get_sample_value(name, {"table": "bronze.idle"}) for name in names} == {0}


def test_a_commit_tells_what_it_merged_and_when_its_rows_were_produced() -> None:
    def stats(oldest: str, newest: str) -> str:
        ends = {"minValues": oldest, "maxValues": newest}
        return json.dumps({"numRecords": 1} | {end: {"_meta": {"produced_at": at}} for end, at in ends.items()})

    figures = {"numTargetRowsInserted": "3", "numTargetRowsUpdated": "2", "numTargetRowsCopied": "90"}
    actions: list[dict[str, Any]] = [
        {"commitInfo": {"operation": "MERGE", "operationMetrics": figures}},
        {"add": {"path": "a", "size": 1, "stats": stats("1970-01-01T00:00:05.000Z", "1970-01-01T00:00:07.500Z")}},
        {"add": {"path": "b", "size": 1, "stats": stats("1970-01-01T00:00:04.250Z", "1970-01-01T00:00:06.000Z")}},
        {"add": {"path": "c", "size": 1, "stats": json.dumps({"numRecords": 1, "minValues": {}})}},
    ]
    commit = parse_commit(1, "\n".join(map(json.dumps, actions)))
    assert merged_rows(commit) == {"inserted": 3, "updated": 2, "copied": 90}
    assert commit.produced_s == (4.25, 7.5)
    append = {"commitInfo": {"operation": "WRITE", "operationMetrics": {"numOutputRows": "8"}}}
    assert merged_rows(parse_commit(0, json.dumps(append))) == {"inserted": 8, "updated": 0, "copied": 0}
    assert parse_commit(0, json.dumps(append)).produced_s is None
