"""Maintenance: keep tables fast to read and no larger than they have to be, beside the jobs that write them.

    headrace maintain [TABLE…]
    spark-submit … jobs/maintain.py --config headrace.yml [--table bronze.flights]

Of each table: layout (clustering, properties, statistics) → retention (rows, dead letters) → compaction → the tables beside
it → VACUUM. In
`headrace run` the same every `maintenance.every`. Positions and totals are untouched: commits of maintenance carry none.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, timedelta

from pyspark.sql import SparkSession

from jobs import tables
from jobs.arguments import select
from jobs.commits import newest_commit_of_ours, read_checksum
from jobs.maintenance.compact import compact
from jobs.maintenance.companions import maintain_companions
from jobs.maintenance.layout import arrange, complete_statistics
from jobs.maintenance.notes import write_note
from jobs.maintenance.readers import unread_from
from jobs.maintenance.retention import delete_rows, expire_dead_letters
from jobs.maintenance.statements import first_line
from jobs.maintenance.vacuum import vacuum
from jobs.table_metrics import note_files
from pipeline import logs, metrics
from pipeline.config import Config, load_config
from pipeline.errors import HeadraceError, TableError
from pipeline.observe.endpoint import push, serve

log = logging.getLogger("headrace.jobs")
NOTE = "maintained"


@dataclass(frozen=True, slots=True)
class Maintained:
    """What was done to one table. ``refused`` is why VACUUM removed nothing, ``skipped`` why nothing was done at all;
    ``files`` and ``bytes`` are those of the table afterwards. What was vacuumed includes the table's companions."""

    table: str
    layout_changed: bool = False
    statistics_files: int = 0
    rows_deleted: int = 0
    dead_letters_expired: int = 0
    files_compacted: int = 0
    files_made: int = 0
    companion_files_compacted: int = 0
    companion_files_made: int = 0
    files_vacuumed: int = 0
    bytes_vacuumed: int = 0
    files: int = 0
    bytes: int = 0
    refused: str | None = None
    skipped: str | None = None


def maintain_table(
    spark: SparkSession, config: Config, table: str, now: datetime | None = None, files_keep: timedelta | None = None
) -> Maintained:
    """Maintain one table, once. ``now`` is what ages are counted to; ``files_keep`` is in place of ``maintenance.files``.

    Raises TableError or ConfigError where the table is not what headrace.yml says.
    """
    configured, settings, now = config.table(table), config.maintenance, now or datetime.now(UTC)
    identity = tables.find(spark, config, configured, ",".join(configured.sources))
    if identity is None:
        return Maintained(table, skipped=f"table {table} is not there yet: run `headrace run {table}` first")
    if configured.layer == "bronze" and (stale := _stale(spark, identity.path, table, settings.log, now)):
        return Maintained(table, skipped=stale)
    done = Maintained(table, layout_changed=arrange(spark, configured, identity, settings.log))
    identity = tables.find(spark, config, configured, ",".join(configured.sources)) or identity
    done = replace(done, statistics_files=complete_statistics(spark, identity))
    if configured.keep and configured.keep.rows:
        unread = unread_from(spark, config, table)
        done = replace(done, rows_deleted=delete_rows(spark, identity.path, configured.keep.rows, now, unread))
    if configured.keep and configured.keep.dead_letters:
        expired = expire_dead_letters(spark, identity.path, configured.keep.dead_letters, now)
        done = replace(done, dead_letters_expired=expired)
    if not tables.is_refreshed(configured):  # a refresh writes every file anew
        compacted = compact(spark, identity.path)
        done = replace(done, files_compacted=compacted.removed, files_made=compacted.added)
    keep = settings.files if files_keep is None else files_keep
    beside, gone = maintain_companions(spark, config, table, keep, now, settings.log)
    done = replace(done, companion_files_compacted=beside.removed, companion_files_made=beside.added)
    try:
        removed = vacuum(spark, config, table, keep, now)
        done = replace(done, files_vacuumed=removed.files, bytes_vacuumed=removed.bytes)
    except TableError as error:
        done = replace(done, refused=str(error))
    done = replace(done, files_vacuumed=done.files_vacuumed + gone.files, bytes_vacuumed=done.bytes_vacuumed + gone.bytes)
    return _noted(spark, identity.path, done, now)


def maintain(spark: SparkSession, config: Config, names: Sequence[str], now: datetime | None = None) -> list[Maintained]:
    """Maintain tables one after the other. The first error is raised after the others had their turn."""
    done: list[Maintained] = []
    failures: list[HeadraceError] = []
    for name in names:
        try:
            done.append(maintain_table(spark, config, name, now))
        except Exception as error:  # noqa: BLE001 - Spark's errors have no common class; the next table is to be maintained too
            metrics.TABLE_UNMAINTAINED.labels(name).inc()
            failure = error if isinstance(error, HeadraceError) else TableError(f"maintenance of {name}: {first_line(error)}")
            log.warning("%s", failure)
            failures.append(failure)
    if failures:
        raise failures[0]
    return done


def maintain_every(spark: SparkSession, config: Config, names: Sequence[str], every: timedelta, end: threading.Event) -> None:
    """Maintain tables again and again until ``end`` is set. What fails is logged and counted, and tried again the next time."""
    while not end.wait(every.total_seconds()):
        for name in names:
            if end.is_set():
                return
            try:
                for one in maintain(spark, config, [name]):
                    log.info("%s", in_words(one))
            except HeadraceError:
                continue  # logged and counted


def in_words(done: Maintained) -> str:
    """One line for a person."""
    if done.skipped:
        return f"{done.table}: left alone: {done.skipped}"
    parts = [
        "layout changed" if done.layout_changed else "",
        f"statistics of {done.statistics_files:,} files" if done.statistics_files else "",
        f"{done.rows_deleted:,} rows deleted" if done.rows_deleted else "",
        f"{done.dead_letters_expired:,} dead letters expired" if done.dead_letters_expired else "",
        f"{done.files_compacted:,} files into {done.files_made:,}" if done.files_compacted else "",
        f"{done.companion_files_compacted:,} files of the tables beside it into {done.companion_files_made:,}"
        if done.companion_files_compacted
        else "",
        f"{done.files_vacuumed:,} files ({done.bytes_vacuumed:,} bytes) removed" if done.files_vacuumed else "",
        done.refused or "",
    ]
    what = "; ".join(part for part in parts if part) or "nothing to do"
    return f"{done.table}: {what}; now {done.files:,} files, {done.bytes:,} bytes"


def _stale(spark: SparkSession, path: str, table: str, log_keep: timedelta, now: datetime) -> str | None:
    """Why a bronze table is left alone: each commit of ours may make Delta clean its log, and the newest positions of a table
    that has not been written for very long are near the log's end."""
    newest = newest_commit_of_ours(spark, path)
    if newest is None or not newest.at_ms:
        return None
    age = now - datetime.fromtimestamp(newest.at_ms / 1000, UTC)
    if age <= log_keep / 2:
        return None
    return (
        f"its newest positions are {age.days} days old, and its log is kept for {log_keep.days}: cleaning the log could lose "
        f"them. Run `headrace run {table}` first, or raise maintenance.log"
    )


def _noted(spark: SparkSession, path: str, done: Maintained, now: datetime) -> Maintained:
    identity = read_checksum(spark, path, tables.version(spark, path))
    if identity is not None:
        done = replace(done, files=int(identity.get("numFiles", 0)), bytes=int(identity.get("tableSizeBytes", 0)))
    note_files(done.table, identity)
    metrics.TABLE_COMPACTED.labels(done.table).inc(done.files_compacted)
    metrics.TABLE_VACUUMED.labels(done.table).inc(done.files_vacuumed)
    metrics.TABLE_VACUUMED_BYTES.labels(done.table).inc(done.bytes_vacuumed)
    metrics.TABLE_EXPIRED.labels(done.table).inc(done.rows_deleted + done.dead_letters_expired)
    metrics.TABLE_UNMAINTAINED.labels(done.table).inc(1 if done.refused else 0)
    if done.refused is None:
        metrics.TABLE_MAINTAINED.labels(done.table).set(time.time())
    write_note(spark, path, NOTE, asdict(done) | {"at": now.isoformat(timespec="seconds")})
    return done


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="jobs/maintain.py", description="Maintain the tables of headrace.yml, once.")
    parser.add_argument("--table", action="append", default=[], help="such as bronze.flights; default: all")
    parser.add_argument("--config", default=None, help="headrace.yml (default: HEADRACE_CONFIG, then headrace.yml here)")
    parser.add_argument("--json", action="store_true", help="print one JSON list at the end, and logs as JSON")
    options = parser.parse_args(arguments)
    logs.configure(role="jobs", as_json=True if options.json else None)
    logging.getLogger("py4j").setLevel(logging.ERROR)
    from jobs.session import spark_session

    try:
        config = load_config(options.config)
        chosen = select(config, options.table, None)
        serve(config, "maintain")
        spark = spark_session("headrace-maintain")
        try:
            done = maintain(spark, config, chosen)
        finally:
            push(config, "maintain")
            spark.stop()
    except HeadraceError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    if options.json:
        sys.stdout.write(json.dumps([asdict(one) for one in done]) + "\n")
    else:
        for one in done:
            sys.stdout.write(in_words(one) + "\n")
    return 1 if any(one.refused for one in done) else 0


if __name__ == "__main__":
    raise SystemExit(main())
