"""Statements of maintenance, beside running jobs: marked as ours, and tried again after a conflict."""

from __future__ import annotations

import json
import logging
import threading
import time
from typing import Any

from pyspark.sql import Row, SparkSession

from jobs.commits import MAINTENANCE, USER_METADATA

log = logging.getLogger("headrace.jobs")

ATTEMPTS_MAX = 5
PAUSE_S = 0.5
_turns: dict[str, threading.Lock] = {}
_guard = threading.Lock()


def turn(table_path: str) -> threading.Lock:
    """What a MERGE and a compaction of the same table hold in one process: together, the later one would be for nothing."""
    with _guard:
        return _turns.setdefault(table_path, threading.Lock())


def session(spark: SparkSession, about: dict[str, Any], settings: dict[str, str] | None = None) -> SparkSession:
    """A session of its own, whose commits say that they are maintenance, and what of."""
    own = spark.newSession()
    own.conf.set("spark.sql.session.timeZone", "UTC")
    own.conf.set(USER_METADATA, json.dumps({MAINTENANCE: about}))
    for name, value in (settings or {}).items():
        own.conf.set(name, value)
    return own


def statement(own: SparkSession, text: str) -> list[Row]:
    """Run one statement; after a conflict with another writer again, which then sees what that one wrote."""
    for attempt in range(1, ATTEMPTS_MAX + 1):
        try:
            return own.sql(text).collect()
        except Exception as error:
            if attempt == ATTEMPTS_MAX or not is_conflict(str(error)):
                raise
            log.info("attempt %d met another writer: %s", attempt, first_line(error))
            time.sleep(PAUSE_S * attempt)
    raise AssertionError("unreachable")


def is_conflict(text: str) -> bool:
    """Whether an error of Delta says that another commit came first."""
    return any(sign in text for sign in ("DELTA_CONCURRENT", "DELTA_METADATA_CHANGED", "io.delta.exceptions.Concurrent"))


def first_line(error: Exception) -> str:
    """The first line of an error, for a sentence."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:500]
