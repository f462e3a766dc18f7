"""The tables beside a table: rows it did not take, late ones, ids it has seen, what its rules said. They get a little with every
micro-batch, so they are what has most small files. Compacted and vacuumed with their table; their rows all stay."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta

from pyspark.sql import SparkSession

from jobs import tables
from jobs.commits import newest_commit_of_ours, read_checksum
from jobs.maintenance.compact import Compacted, compact
from jobs.maintenance.vacuum import Vacuumed, vacuum_path
from jobs.merging.ids import ids_table
from jobs.quality import results
from jobs.rejects import QUARANTINE_SUFFIX, REJECTED_SUFFIX
from pipeline.config import Config
from pipeline.config.gold import LATE_SUFFIX


def maintain_companions(
    spark: SparkSession, config: Config, table: str, files_keep: timedelta, now: datetime, log_keep: timedelta
) -> tuple[Compacted, Vacuumed]:
    """Bring the files of a table's companions together, and remove those that left them before ``now - files_keep``. Each is read
    as a whole and newest, by our jobs only: no reader can lag behind. Raises TableError where ``files_keep`` is not safe."""
    removed = added = files = size = 0
    for name in _companions(config, table):
        path = tables.table_path(config, name)
        version = tables.version(spark, path)
        if version < 0 or _is_stale(spark, path, name, now - log_keep / 2):
            continue
        if int((read_checksum(spark, path, version) or {}).get("numFiles", 2)) > 1:
            compacted = compact(spark, path)
            removed, added = removed + compacted.removed, added + compacted.added
        vacuumed = vacuum_path(spark, path, name, files_keep)
        files, size = files + vacuumed.files, size + vacuumed.bytes
    return Compacted(removed, added), Vacuumed(files, size)


def _companions(config: Config, table: str) -> Iterator[str]:
    configured = config.table(table)
    if configured.layer == "gold":
        yield table + LATE_SUFFIX
        return
    yield table + REJECTED_SUFFIX
    yield table + QUARANTINE_SUFFIX
    yield ids_table(table)
    if configured.expect:
        yield results.NAME


def _is_stale(spark: SparkSession, path: str, name: str, since: datetime) -> bool:
    """A late table's newest commit says which step it has: commits of maintenance may make Delta clean the log past it."""
    if not name.endswith(LATE_SUFFIX):
        return False
    newest = newest_commit_of_ours(spark, path)
    return newest is not None and 0 < newest.at_ms < since.timestamp() * 1000
