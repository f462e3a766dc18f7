"""Statements of maintenance, beside running jobs: marked as ours, and made again after a conflict."""

from __future__ import annotations

import json
import threading
from typing import Any

from pyspark.sql import Row, SparkSession

from jobs.commits import MAINTENANCE, USER_METADATA
from jobs.conflicts import again_on_conflict

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
    return again_on_conflict(lambda: own.sql(text).collect(), text.partition("\n")[0][:80])


def first_line(error: Exception) -> str:
    """The first line of an error, for a sentence."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:500]
