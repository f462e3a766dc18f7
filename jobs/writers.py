"""One driver writes a table on S3 at a time: each start takes the next number, and who no longer has the newest stops.

Delta's log store for S3 keeps writers apart inside one JVM only (docs/adr/0021-one-driver-per-table-on-s3.md). HDFS does it
itself, and what a local disk does is said in docs/cluster.md: there is nothing to do here.
"""

from __future__ import annotations

import os
import socket

from pyspark.sql import SparkSession

from jobs.object_store import is_object_store
from jobs.storage import create_text, names
from pipeline.errors import TableError


class Writer:
    """A query's right to write its table. ``folder`` is its Spark checkpoint's. Used by one thread at a time."""

    def __init__(self, spark: SparkSession, table: str, folder: str) -> None:
        self._spark = spark
        self._table = table
        self._folder = f"{folder}/writers"
        self._number = 0

    def take(self) -> None:
        """Become the table's writer; whoever was it stops at its next micro-batch."""
        if not is_object_store(self._folder):
            return
        while True:  # each round lost is a number that another took
            self._number = self._newest() + 1
            if create_text(self._spark, f"{self._folder}/{self._number:09d}", f"{socket.gethostname()} {os.getpid()}\n"):
                return

    def check(self) -> None:
        """Call just before each write. Raises TableError where another driver has taken the table over."""
        if self._number and self._newest() != self._number:
            raise TableError(
                f"{self._table}: another driver has started to write this table, so this one stops; nothing is lost. If that "
                "was not meant, end the other one, then start this one again"
            )

    def _newest(self) -> int:
        return max((int(name) for name in names(self._spark, self._folder) if name.isdigit()), default=0)
