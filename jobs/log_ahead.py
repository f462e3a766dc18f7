"""The state of a Delta table's log, computed beside what a micro-batch does before it writes.

To look up the query's last transaction, Delta (4.4) computes the state of the log for each new version, in Spark jobs of its
own: a third of a small micro-batch's time. It keeps what it computed with the version, so the write finds it done.
"""

from __future__ import annotations

import logging
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from pyspark.sql import SparkSession

log = logging.getLogger("headrace.jobs")


class LogAhead:
    """One table's. ``begin`` and ``close`` by one thread at a time."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="headrace-log-ahead")
        self._running: Future[None] = Future()
        self._running.set_result(None)

    def begin(self, session: SparkSession) -> None:
        """Have the newest version known here computed, with the session's settings; nothing while one is being computed."""
        if self._running.done():
            self._running = self._thread.submit(self._compute, session)

    def close(self) -> None:
        self._thread.shutdown()

    def _compute(self, session: SparkSession) -> None:
        try:
            jvm: Any = session._jvm
            getattr(jvm, "org.apache.spark.sql.classic.SparkSession").setActiveSession(session._jsparkSession)
            delta_log = getattr(jvm, "org.apache.spark.sql.delta.DeltaLog").forTable(session._jsparkSession, self._path)
            delta_log.unsafeVolatileSnapshot().transactions()
        except Exception as error:  # noqa: BLE001 - whatever it is, the write meets it too, and says so
            log.debug("%s: the log was not read ahead: %s", self._path, error)
