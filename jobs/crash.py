"""Crash points: where a test may have a job killed, by name, as a power cut would (SIGKILL, the JVM's too).

    HEADRACE_CRASH=bronze.after_commit      at the first time that this process gets there
    HEADRACE_CRASH=bronze.after_commit:3    at the third

Without the variable a point costs one comparison. A job that survives being killed at each of these survives being killed
anywhere: they lie before and after everything that it leaves behind (table, Spark checkpoint, data files, Delta's commit,
Spark's commit).
"""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from pathlib import Path
from typing import NoReturn, Protocol

from pyspark.sql import SparkSession

from pipeline.errors import ConfigError

log = logging.getLogger("headrace.jobs")
VARIABLE = "HEADRACE_CRASH"

POINTS = {
    "bronze.table_made": "the table is there, its Spark checkpoint is not marked as its own yet",
    "bronze.before_start": "everything was checked; the query does not run yet (each start, also for a reshard's children)",
    "bronze.planned": "Spark has noted the micro-batch's offsets; nothing was read",
    "bronze.before_write": "every message was judged; nothing was written",
    "bronze.before_commit": "a data file was written (whole or in part); Delta does not know it yet",
    "bronze.after_commit": "the rows are in the table; Spark has not noted the micro-batch as done",
    "bronze.after_micro_batch": "Spark has noted it as done",
    "silver.table_made": "the table is there, its Spark checkpoint is not marked as its own yet",
    "silver.before_start": "everything was checked; the query does not run yet",
    "silver.planned": "Spark has noted which bronze versions the micro-batch covers; nothing was read",
    "silver.before_ids": "which explicit ids are seen for the first time is known (`dedup:`); they are not written",
    "silver.after_ids": "they are written beside the table; its rows are not merged",
    "silver.before_write": "the newest row of each key is known; nothing was written",
    "silver.before_commit": "a data file was written (whole or in part); Delta does not know it yet",
    "silver.after_commit": "the rows are merged; Spark has not noted the micro-batch as done",
    "silver.after_micro_batch": "Spark has noted it as done",
    "gold.table_made": "the table is there and empty",
    "gold.before_write": "the query is planned; nothing was computed or written",
    "gold.before_commit": "a data file was written (whole or in part); Delta does not know it yet",
    "gold.after_commit": "the new rows are visible",
}
"""Name → what is done and what is not when the process dies there."""


class Trigger(Protocol):
    """What becomes of a point. ``folder``: as soon as a data file appears in it, not at once."""

    def __call__(self, point: str, folder: str | None = None) -> None: ...


_trigger: Trigger | None = None


def arm(spark: SparkSession) -> None:
    """Read HEADRACE_CRASH, where it is set. Raises ConfigError for a point that there is not."""
    global _trigger
    text = os.environ.get(VARIABLE)
    if not text:
        return
    point, times = parse(text)
    jvm = spark._jvm
    assert jvm is not None
    _trigger = _Kill(point, times, int(jvm.java.lang.ProcessHandle.current().pid()))
    log.warning("%s is set: this process will be killed at %s", VARIABLE, text)


def parse(text: str) -> tuple[str, int]:
    """Point and count of ``bronze.after_commit:3``. Raises ConfigError."""
    point, _, times = text.partition(":")
    if point not in POINTS:
        raise ConfigError(f"{VARIABLE}: there is no crash point {point!r}; there are: {', '.join(POINTS)}")
    if times and (not times.isascii() or not times.isdigit() or int(times) < 1):
        raise ConfigError(f"{VARIABLE}: {times!r} is not how often {point} is reached: expected a number from 1 on")
    return point, int(times or 1)


def reach(point: str) -> None:
    """The process is at this point."""
    if _trigger is not None:
        _trigger(point)


def reach_when_written(point: str, folder: str) -> None:
    """The process is about to write data files into a table's folder; the point is where the first one appears."""
    if _trigger is not None:
        _trigger(point, folder)


class _Kill:
    """Dies at the given time that a point is reached. Any thread."""

    def __init__(self, point: str, times: int, jvm_pid: int) -> None:
        self._point, self._left, self._jvm_pid = point, times, jvm_pid
        self._lock = threading.Lock()

    def __call__(self, point: str, folder: str | None = None) -> None:
        if point != self._point:
            return
        with self._lock:
            self._left -= 1
            is_due = self._left == 0
        if not is_due:
            return
        if folder is None:
            self._die()
        before = _data_files(folder)
        threading.Thread(target=self._die_when_written, args=(folder, before), name="headrace-crash", daemon=True).start()

    def _die_when_written(self, folder: str, before: set[str]) -> None:
        while not _data_files(folder) - before:
            time.sleep(0.001)
        self._die()

    def _die(self) -> NoReturn:
        """The JVM first: it is the one that writes."""
        os.write(2, f"killed at crash point {self._point}\n".encode())
        os.kill(self._jvm_pid, signal.SIGKILL)
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError("unreachable")


def _data_files(folder: str) -> set[str]:
    """Names of a local table's data files."""
    at = Path(folder.removeprefix("file:"))
    return {entry.name for entry in os.scandir(at) if entry.name.endswith(".parquet")} if at.is_dir() else set()
