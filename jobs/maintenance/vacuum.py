"""VACUUM: remove the files that left a table long ago, unless a reader that lags behind will still ask for them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime, timedelta

from pyspark.sql import SparkSession

from jobs.commits import read_commit, versions
from jobs.maintenance.readers import Reader, identity_of, readers_of
from jobs.maintenance.statements import first_line, session, statement
from jobs.storage import read_text
from pipeline.config import Config
from pipeline.errors import TableError

LISTING_TASKS = 32
"""Delta lists a table's folders in as many tasks as this setting says; with Spark's default of 10,000 that takes minutes on a
small machine, however small the table is."""


@dataclass(frozen=True, slots=True)
class Vacuumed:
    """What was removed from the disk."""

    files: int = 0
    bytes: int = 0


def vacuum(spark: SparkSession, config: Config, table: str, keep: timedelta, now: datetime) -> Vacuumed:
    """Remove files that are no part of the table since ``now - keep``.

    Raises TableError, and removes nothing, where a reader stands before a version that removed such a file, or ``keep`` is below
    the table's own safe retention (``delta.deletedFileRetentionDuration``, 7 days by default).
    """
    path = identity_of(spark, config, table).path
    check_readers(spark, path, table, readers_of(spark, config, table), now - keep)
    return vacuum_path(spark, path, table, keep)


def vacuum_path(spark: SparkSession, path: str, table: str, keep: timedelta) -> Vacuumed:
    """``vacuum`` of a table that nobody reads by versions."""
    own = session(spark, {"step": "vacuum"}, {"spark.sql.sources.parallelPartitionDiscovery.parallelism": str(LISTING_TASKS)})
    before = versions(spark, path)[-1]
    hours = keep / timedelta(hours=1)
    text = f"VACUUM delta.`{path}` RETAIN {hours:.6f} HOURS"
    try:
        if not statement(own, f"{text} DRY RUN"):
            return Vacuumed()  # it would make two versions to say so
        statement(own, text)
    except Exception as error:
        if "RETENTION_PERIOD_TOO_SHORT" not in str(error):
            raise
        raise TableError(
            f"VACUUM of {table} is refused: {hours:g} hours are below its safe retention (delta.deletedFileRetentionDuration): "
            f"files of running writers and readers could go. Keep files for longer: {first_line(error)}"
        ) from error
    return _done(spark, path, before)


def check_readers(spark: SparkSession, path: str, table: str, readers: list[Reader], until: datetime) -> None:
    """Raises TableError where a reader stands before a version that took files out of the table before ``until``."""
    if not readers:
        return
    last = min(readers, key=lambda one: one.version)  # what it does not need, nobody needs
    later = (version for version in versions(spark, path) if version > last.version)
    texts = ((version, read_text(spark, f"{path}/_delta_log/{version:020d}.json") or "") for version in later)
    removing = next((version for version, text in texts if removes_before(text, until)), None)
    if removing is None:
        return
    do = f"let it catch up (`headrace run {last.name}`)"
    if last.kind == "registered":
        do = f"let it catch up, or, if it is gone, `headrace table forget {table} {last.name}`"
    raise TableError(
        f"VACUUM of {table} is refused: {last.name} stands at version {last.version} and has yet to read files that version "
        f"{removing} took out of the table, which would go: {do}"
    )


def removes_before(log_text: str, until: datetime) -> bool:
    """Whether a commit's log file has a removal that is older than ``until``."""
    until_ms = until.timestamp() * 1000
    for line in log_text.splitlines():
        if line.startswith('{"remove"') and int(json.loads(line)["remove"].get("deletionTimestamp") or 0) < until_ms:
            return True
    return False


def _done(spark: SparkSession, path: str, before: int) -> Vacuumed:
    """What Delta noted of the VACUUM in the versions it made."""
    files = size = 0
    for version in versions(spark, path):
        commit = read_commit(spark, path, version) if version > before else None
        if commit is not None and commit.operation == "VACUUM END":
            files += int(commit.metrics.get("numDeletedFiles", 0))
        elif commit is not None and commit.operation == "VACUUM START":
            size += int(commit.metrics.get("sizeOfDataToDelete", 0))
    return Vacuumed(files, size)
