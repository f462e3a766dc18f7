"""What Spark tells of the queries that carry a table's name (StreamingQueryListener), passed on to the driver's metrics."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from pyspark import SparkContext
from pyspark.sql import SparkSession
from pyspark.sql.streaming.listener import JStreamingQueryListener, StreamingQueryListener

from jobs import crash
from jobs.table_metrics import TableMetrics
from pipeline import metrics

log = logging.getLogger("headrace.jobs")
_DRAIN_MS = 5_000


class Listener(StreamingQueryListener):
    """Spark calls it from a thread of its own. Queries of somebody else's in the same session have no table's name."""

    def __init__(self, tables: TableMetrics, names: frozenset[str]) -> None:
        self._tables, self._names = tables, names
        self._running: dict[str, str] = {}

    def onQueryStarted(self, event: Any) -> None:
        if event.name in self._names:
            self._running[str(event.runId)] = event.name
            metrics.TABLE_FAILURES.labels(event.name).inc(0)

    def onQueryProgress(self, event: dict[str, Any]) -> None:  # type: ignore[override]
        """``event`` is Spark's progress as JSON, not PySpark's object of it (see :class:`_FromJson`)."""
        table = event["name"]
        if table not in self._names:
            return
        crash.reach(f"{table.partition('.')[0]}.after_micro_batch")
        try:
            self._tables.note_progress(event)
        except Exception as error:  # noqa: BLE001 - only figures would be missing, and Spark would print a page
            log.warning("the metrics of %s lack a micro-batch: %s", table, error)

    @property
    def _jlistener(self) -> Any:
        if not hasattr(self, "_jlistenerobj"):
            wrapper = SparkContext._jvm.PythonStreamingQueryListenerWrapper  # type: ignore[union-attr]
            self._jlistenerobj = wrapper(_FromJson(self))
        return self._jlistenerobj

    def onQueryIdle(self, event: Any) -> None:
        if (table := self._running.get(str(event.runId))) is not None:
            self._tables.note_idle(table)

    def onQueryTerminated(self, event: Any) -> None:
        """Failures are counted by whoever watches the query: only it knows a stop from a failure."""
        self._running.pop(str(event.runId), None)


class _FromJson(JStreamingQueryListener):
    """PySpark asks the JVM for a progress field by field, exceptions among the answers: a quarter of a second of processor
    time in every micro-batch. Its JSON is one call."""

    def onQueryProgress(self, jevent: Any) -> None:
        self.pylistener.onQueryProgress(json.loads(jevent.progress().json()))

    class Java:
        implements = JStreamingQueryListener.Java.implements


@contextmanager
def listening(spark: SparkSession, tables: TableMetrics, names: frozenset[str]) -> Iterator[None]:
    """Within, micro-batches are counted; those under way in Spark's event queue at the end too."""
    listener = Listener(tables, names)
    spark.streams.addListener(listener)
    try:
        yield
    finally:
        try:
            spark.sparkContext._jsc.sc().listenerBus().waitUntilEmpty(_DRAIN_MS)
        except Exception as error:  # noqa: BLE001 - only figures would be missing
            log.debug("the last micro-batches may not be counted: %s", error)
        spark.streams.removeListener(listener)
