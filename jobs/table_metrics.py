"""What a Spark driver's metrics say of tables, from what their commits and their queries' progress say.

Freshness and what a table lacks are told by the commits themselves: Delta keeps the oldest and the newest ``produced_at`` of
each file beside it, so neither costs a query.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from pyspark.sql import SparkSession

from jobs.commits import Commit, read_checksum, read_commit
from jobs.progress import TableProgress
from jobs.tables import table_path, version
from pipeline import metrics
from pipeline.config import Config

VERSIONS_MAX = 200
"""Commits that are looked into for one micro-batch: more are many files to open, and the newest tell most."""


class TableMetrics:
    """The figures of a run's tables. Each table has one thread that commits (``note_commit``); progress comes from another."""

    def __init__(self, spark: SparkSession, config: Config, tables: Sequence[str]) -> None:
        self._spark = spark
        self._config = config
        self._noted = {table: version(spark, table_path(config, table)) for table in tables}
        self._newest_s: dict[str, float] = {}
        self._per_message: dict[str, float] = {}

    def note_commit(self, progress: TableProgress) -> None:
        """After each micro-batch of a table, which may have written nothing."""
        table, path = progress.table, table_path(self._config, progress.table)
        metrics.TABLE_VERSION.labels(table).set(progress.version)
        metrics.TABLE_RECORDS.labels(table).set(progress.records)
        metrics.TABLE_REPEATS.labels(table).set(progress.repeats)
        metrics.TABLE_VOIDS.labels(table).set(progress.voids)
        metrics.TABLE_REJECTED.labels(table).set(progress.rejected)
        metrics.TABLE_COMMITTED.labels(table).set(time.time())
        if progress.watermark_us is not None:
            metrics.TABLE_WATERMARK.labels(table).set(progress.watermark_us / 1e6)
        note_files(table, read_checksum(self._spark, path, progress.version))
        if progress.messages:
            self._per_message[table] = progress.records / progress.messages
        for commit in self._commits(path, self._noted.get(table, -1) + 1, progress.version + 1):
            if commit.metadata is not None:
                self._note(table, commit)
        self._noted[table] = progress.version

    def note_progress(self, progress: dict[str, Any]) -> None:
        """After each micro-batch, as Spark tells it in JSON (rates that are no numbers are left out there)."""
        table, operators = progress["name"], progress["stateOperators"]
        metrics.TABLE_MICRO_BATCHES.labels(table).inc()
        metrics.TABLE_INPUT_ROWS.labels(table).inc(max(0, progress["numInputRows"]))
        metrics.TABLE_INPUT_RATE.labels(table).set(progress.get("inputRowsPerSecond", 0))
        metrics.TABLE_PROCESSED_RATE.labels(table).set(progress.get("processedRowsPerSecond", 0))
        for phase, milliseconds in progress["durationMs"].items():
            metrics.TABLE_PHASE_SECONDS.labels(table, phase).inc(milliseconds / 1000)
        metrics.TABLE_COMMITTED.labels(table).set(time.time())
        if operators:
            metrics.TABLE_STATE_ROWS.labels(table).set(sum(one["numRowsTotal"] for one in operators))
            metrics.TABLE_STATE_BYTES.labels(table).set(sum(one["memoryUsedBytes"] for one in operators))
            metrics.TABLE_LATE.labels(table).inc(sum(one["numRowsDroppedByWatermark"] for one in operators))
        if self._config.table(table).layer == "bronze":
            self._note_messages(table, progress["sources"])
        elif self._config.table(table).layer == "silver":
            self._note_versions(table, progress)

    def note_idle(self, table: str) -> None:
        """A query that waits has read everything."""
        metrics.TABLE_INPUT_RATE.labels(table).set(0)
        metrics.TABLE_PROCESSED_RATE.labels(table).set(0)
        self._note_behind(table, 0)
        if self._config.table(table).layer == "bronze":
            metrics.TABLE_BEHIND.labels(table).set(0)

    def _note(self, table: str, commit: Commit) -> None:
        assert commit.metadata is not None
        layer = self._config.table(table).layer
        if layer == "bronze":
            marks = commit.metadata.get("marks") or {}
            metrics.TABLE_STATE_ROWS.labels(table).set(sum(len(of_one["ranges"]) for of_one in marks.values()))
            metrics.TABLE_STATE_BYTES.labels(table).set(len(json.dumps(marks, separators=(",", ":"))))
            if commit.produced_s is not None:
                self._note_freshness(table, commit.produced_s, time.time())
        elif layer == "silver":
            for kind, count in merged_rows(commit).items():
                metrics.TABLE_MERGE_ROWS.labels(table, kind).inc(count)

    def _note_freshness(self, table: str, produced_s: tuple[float, float], visible_s: float) -> None:
        for kind, at_s in zip(("oldest", "newest"), produced_s, strict=True):
            metrics.TABLE_FRESHNESS_SECONDS.labels(table, kind).observe(max(0.0, visible_s - at_s))
        self._newest_s[table] = produced_s[1]

    def _note_messages(self, table: str, sources: Sequence[Any]) -> None:
        known = [one for one in map(messages_behind, sources) if one is not None]
        if known:
            metrics.TABLE_BEHIND.labels(table).set(sum(known))
            self._note_behind(table, sum(known) * self._per_message.get(table, 1.0))

    def _note_versions(self, table: str, progress: dict[str, Any]) -> None:
        """Which of its source's versions a silver table has merged with this micro-batch, and which not yet."""
        path = table_path(self._config, self._config.table(table).sources[0])
        source = progress["sources"][0]
        read = versions_read(source["startOffset"], source["endOffset"])
        if read is None:
            return
        metrics.TABLE_SOURCE_VERSION.labels(table).set(read.stop - 1)
        produced = [one.produced_s for one in self._commits(path, read.start, read.stop) if one.produced_s is not None]
        if produced and progress["numInputRows"]:
            span = (min(oldest for oldest, _ in produced), max(newest for _, newest in produced))
            self._note_freshness(table, span, _visible_s(progress))
        waiting = self._commits(path, read.stop, version(self._spark, path, read.stop - 1) + 1)
        self._note_behind(table, sum(one.rows - one.rejected for one in waiting if one.metadata is not None))

    def _note_behind(self, table: str, records: float) -> None:
        metrics.TABLE_BEHIND_RECORDS.labels(table).set(records)
        newest_s = self._newest_s.get(table)
        if not records:
            metrics.TABLE_BEHIND_SECONDS.labels(table).set(0)
        elif newest_s is not None:
            metrics.TABLE_BEHIND_SECONDS.labels(table).set(max(0.0, time.time() - newest_s))

    def _commits(self, path: str, first: int, end: int) -> Iterable[Commit]:
        """The commits of versions [first, end) that the log still has, the newest VERSIONS_MAX."""
        found = (read_commit(self._spark, path, one) for one in range(max(first, end - VERSIONS_MAX, 0), end))
        return [commit for commit in found if commit is not None]


def note_files(table: str, checksum: Mapping[str, Any] | None) -> None:
    """What the newest version of a table holds, as Delta notes it beside the version."""
    if checksum is not None:
        metrics.TABLE_FILES.labels(table).set(int(checksum.get("numFiles", 0)))
        metrics.TABLE_BYTES.labels(table).set(int(checksum.get("tableSizeBytes", 0)))


def merged_rows(commit: Commit) -> dict[str, int]:
    """What a silver commit did to rows; the first one is an append."""
    names = {"inserted": "numTargetRowsInserted", "updated": "numTargetRowsUpdated", "copied": "numTargetRowsCopied"}
    if "numTargetRowsInserted" in commit.metrics:
        return {kind: int(commit.metrics.get(name, 0)) for kind, name in names.items()}
    return {"inserted": int(commit.metrics.get("numOutputRows", 0)), "updated": 0, "copied": 0}


def messages_behind(source: dict[str, Any]) -> int | None:
    """Messages between the micro-batch's end and the log's, of a Kafka source; None of another."""
    try:
        end, latest = source["endOffset"], source["latestOffset"]
        return sum(int(latest[topic][p]) - int(at) for topic, places in end.items() for p, at in places.items())
    except (TypeError, ValueError, KeyError, AttributeError):
        return None


def versions_read(start: Any, end: Any) -> range | None:
    """The versions of a Delta source that a micro-batch covers, by Spark's offsets; None where they are another source's.

    An offset is the next to read: (version, index of the file in it), the index negative before the first. A first start
    reads the table as it is, so every version up to the one it names.
    """
    try:
        first = 0 if start is None else int(start["reservoirVersion"])
        return range(first, int(end["reservoirVersion"]) + (int(end["index"]) >= 0))
    except (TypeError, ValueError, KeyError):
        return None


def _visible_s(progress: dict[str, Any]) -> float:
    """When a micro-batch's rows became visible: when it ended, less the time in which Spark noted it as done."""
    took_ms = progress["durationMs"].get("triggerExecution", 0) - progress["durationMs"].get("commitOffsets", 0)
    return datetime.fromisoformat(progress["timestamp"]).timestamp() + float(took_ms) / 1000
