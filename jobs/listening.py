"""A Spark driver's metrics: what each micro-batch told (StreamingQueryListener), and what the table holds after it."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from pyspark.sql import SparkSession
from pyspark.sql.streaming.listener import StreamingQueryListener

from jobs import crash
from jobs.progress import TableProgress
from pipeline import metrics

log = logging.getLogger("headrace.jobs")
_DRAIN_MS = 5_000


def note_commit(progress: TableProgress, checksum: Mapping[str, Any] | None) -> None:
    """After each commit of a table; ``checksum`` is what Delta noted beside the version about the whole table."""
    table = progress.table
    metrics.TABLE_VERSION.labels(table).set(progress.version)
    metrics.TABLE_RECORDS.labels(table).set(progress.records)
    metrics.TABLE_REPEATS.labels(table).set(progress.repeats)
    metrics.TABLE_VOIDS.labels(table).set(progress.voids)
    metrics.TABLE_REJECTED.labels(table).set(progress.rejected)
    metrics.TABLE_COMMITTED.labels(table).set(time.time())
    if checksum is not None:
        metrics.TABLE_FILES.labels(table).set(int(checksum.get("numFiles", 0)))
        metrics.TABLE_BYTES.labels(table).set(int(checksum.get("tableSizeBytes", 0)))


class Listener(StreamingQueryListener):
    """Counts the micro-batches of the queries that carry a table's name; Spark calls it from a thread of its own."""

    def onQueryStarted(self, event: Any) -> None:
        if event.name:
            metrics.TABLE_FAILURES.labels(event.name).inc(0)

    def onQueryProgress(self, event: Any) -> None:
        progress = event.progress
        table = progress.name
        if not table:
            return  # a query of somebody else's in the same session
        crash.reach(f"{table.partition('.')[0]}.after_micro_batch")
        metrics.TABLE_MICRO_BATCHES.labels(table).inc()
        metrics.TABLE_INPUT_ROWS.labels(table).inc(max(0, progress.numInputRows))
        for phase, milliseconds in progress.durationMs.items():
            metrics.TABLE_PHASE_SECONDS.labels(table, phase).inc(milliseconds / 1000)
        behind = [_behind(source) for source in progress.sources]
        if known := [one for one in behind if one is not None]:
            metrics.TABLE_BEHIND.labels(table).set(sum(known))
        metrics.TABLE_COMMITTED.labels(table).set(time.time())

    def onQueryIdle(self, event: Any) -> None:
        """Nothing to do: the table is as fresh as its source."""

    def onQueryTerminated(self, event: Any) -> None:
        """Counted by whoever watches the query: only it knows a stop from a failure."""


def _behind(source: Any) -> int | None:
    """Messages between the micro-batch's end and the log's, of a Kafka source; None of another."""
    try:
        end, latest = json.loads(source.endOffset), json.loads(source.latestOffset)
        return sum(int(latest[topic][p]) - int(at) for topic, places in end.items() for p, at in places.items())
    except (TypeError, ValueError, KeyError, AttributeError):
        return None


@contextmanager
def listening(spark: SparkSession) -> Iterator[None]:
    """Within, micro-batches are counted; those under way in Spark's event queue at the end too."""
    listener = Listener()
    spark.streams.addListener(listener)
    try:
        yield
    finally:
        try:
            spark.sparkContext._jsc.sc().listenerBus().waitUntilEmpty(_DRAIN_MS)
        except Exception as error:  # noqa: BLE001 - only figures would be missing
            log.debug("the last micro-batches may not be counted: %s", error)
        spark.streams.removeListener(listener)
