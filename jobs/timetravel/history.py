"""A table's versions: when, what, how many rows and files, and who; and finding a version by number or time."""

from __future__ import annotations

import json
from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from pyspark.sql import SparkSession

from jobs.commits import FENCE, MAINTENANCE, RESTORED, versions
from jobs.storage import read_text
from pipeline.errors import ConfigError, TableError

# What an operation's figures say about rows: inserted, updated, deleted.
_ROWS = (
    ("numTargetRowsInserted", "numTargetRowsUpdated", "numTargetRowsDeleted"),
    ("numOutputRows", "numUpdatedRows", "numDeletedRows"),
)


@dataclass(frozen=True, slots=True)
class Version:
    """One version. ``rows_…`` are what its operation says (None: it does not); ``files_…`` are counted in its log. ``by`` is
    a micro-batch, a refresh, a step of maintenance, a restore, or the user's name."""

    version: int
    at: str
    operation: str
    by: str
    rows_inserted: int | None
    rows_updated: int | None
    rows_deleted: int | None
    files_added: int
    files_removed: int


def history(spark: SparkSession, path: str, newest: int | None = None) -> list[Version]:
    """The versions whose log is there, newest first; the ``newest`` so many of them."""
    found = versions(spark, path)[::-1][:newest]
    texts = ((version, read_text(spark, f"{path}/_delta_log/{version:020d}.json")) for version in found)
    return [parse_version(version, text) for version, text in texts if text is not None]


def parse_version(version: int, log_text: str) -> Version:
    """A version from the text of its log file."""
    info: dict[str, Any] = {}
    added = removed = 0
    for line in log_text.splitlines():
        if line.startswith('{"commitInfo"'):
            info = json.loads(line)["commitInfo"]
        added += line.startswith('{"add"')
        removed += line.startswith('{"remove"')
    at = datetime.fromtimestamp(int(info.get("timestamp") or 0) / 1000, UTC).isoformat(timespec="milliseconds")
    inserted, updated, deleted = _rows(info.get("operationMetrics") or {})
    return Version(version, at, info.get("operation", ""), _by(info), inserted, updated, deleted, added, removed)


def resolve(spark: SparkSession, path: str, table: str, which: str) -> int:
    """A version given as a number, or as a time in ISO 8601 (UTC unless it says otherwise): the newest at that time.

    Raises ConfigError for a text that is neither, TableError for a version that is not there (any more).
    """
    there = versions(spark, path)
    if not there:
        raise TableError(f"table {table} is not there yet: run `headrace run {table}` first")
    if which.isdigit():
        version = int(which)
        if version in there:
            return version
        state = "is not there yet" if version > there[-1] else "is gone"
        raise TableError(f"version {version} of {table} {state}: its log has versions {there[0]} to {there[-1]}")

    def made_at(version: int) -> datetime:
        return datetime.fromisoformat(parse_version(version, read_text(spark, f"{path}/_delta_log/{version:020d}.json") or "").at)

    found = bisect_right(there, _time(which), key=made_at)
    if not found:
        raise TableError(f"{table} has no version from {which} or before (any more): its oldest one is version {there[0]}")
    return there[found - 1]


def _time(text: str) -> datetime:
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise ConfigError(f"expected a version such as 12, or a time such as 2026-01-31T12:00, not {text!r}") from None
    return at if at.tzinfo else at.replace(tzinfo=UTC)


def _rows(metrics: Mapping[str, Any]) -> tuple[int | None, int | None, int | None]:
    for names in _ROWS:
        if any(name in metrics for name in names):
            inserted, updated, deleted = (int(metrics[name]) if name in metrics else None for name in names)
            return inserted, updated, deleted
    return None, None, None


def _by(info: Mapping[str, Any]) -> str:
    try:
        ours = json.loads(info.get("userMetadata") or "{}")
    except ValueError:
        ours = {}
    if not isinstance(ours, dict):
        ours = {}
    if MAINTENANCE in ours:
        return f"maintenance: {ours[MAINTENANCE].get('step', '')}"
    if (restored := ours.get(RESTORED, ours.get(f"headrace_{RESTORED}"))) is not None:
        return f"restore to version {restored}"
    if FENCE in ours:
        return "restore: fence"
    if "micro_batch" in ours:
        return f"micro-batch {ours['micro_batch']}"
    if "inputs" in ours:
        return "refresh"
    return str(info.get("userName") or "")
