"""The state of a Delta table's log, computed beside what a micro-batch does before it writes.

To look up the query's last transaction, or how many files there are, Delta (4.4) computes the state of the log for each new
version, in Spark jobs of its own: a third of a small micro-batch of bronze. It keeps what it computed with the version, so the
write finds it done.
"""

from __future__ import annotations

import logging
from concurrent.futures import Future, ThreadPoolExecutor

from pyspark.sql import SparkSession

log = logging.getLogger("headrace.jobs")


_QUICKLY = {
    "spark.sql.adaptive.enabled": "false",
    "spark.sql.codegen.factoryMode": "NO_CODEGEN",
    "spark.sql.codegen.wholeStage": "false",
}
"""For few rows through large expressions: generating code for them, or planning stage by stage, takes longer than the rest."""


class LogAhead:
    """One table's. ``begin`` and ``close`` by one thread at a time."""

    def __init__(self, spark: SparkSession, path: str) -> None:
        self._path = path
        self._session = spark.newSession()
        for key, value in _QUICKLY.items():
            self._session.conf.set(key, value)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="headrace-log-ahead")
        self._running: Future[None] = Future()
        self._running.set_result(None)

    def begin(self) -> None:
        """Have the newest version known to this process computed; nothing while one is being computed."""
        if self._running.done():
            self._running = self._thread.submit(self._compute)

    def close(self) -> None:
        self._thread.shutdown()

    def _compute(self) -> None:
        try:
            jvm, own = self._session._jvm, self._session._jsparkSession
            getattr(jvm, "org.apache.spark.sql.classic.SparkSession").setActiveSession(own)
            delta_log = getattr(jvm, "org.apache.spark.sql.delta.DeltaLog").forTable(own, self._path)
            delta_log.unsafeVolatileSnapshot().transactions()
        except Exception as error:  # noqa: BLE001 - whatever it is, the write meets it too, and says so
            log.debug("%s: the log was not read ahead: %s", self._path, error)
