"""Going back to an older version, so that exactly once holds afterwards. With the table's jobs stopped; one that runs
nevertheless finds out and stops.

bronze  its positions in Kafka go back with its rows, since both are in the commit: the next run reads on from there. So Kafka has
        to have everything that is read again. Order: fence the query off → restore, with the state of that version → take its
        Spark checkpoint away, and those of the silver tables that read it, which merge all of it again.
silver  the next run merges all of its bronze table again: newest wins, so nothing is applied twice. Order: take the Spark
        checkpoint away → restore → take one away that a job made in between.
gold    computed anew by its next refresh, when a source has changed.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from pyspark.sql import SparkSession

from jobs import assignment, tables
from jobs.checkpoint import SparkCheckpoint
from jobs.commits import RESTORED, USER_METADATA, BronzeState, Counts, newest_commit_of_ours, read_commit
from jobs.maintenance.readers import identity_of
from jobs.maintenance.retention import Retention
from jobs.maintenance.statements import first_line
from jobs.timetravel.fence import fence
from jobs.timetravel.history import resolve
from pipeline.config import Config, TableConfig
from pipeline.errors import StreamConflictError, TableError, TrimmedError
from pipeline.kafka.offsets import bounds
from pipeline.reshard.control_log import ControlLog


@dataclass(frozen=True, slots=True)
class Restored:
    """``version`` is the one whose rows the table has now, ``now`` the new one that has them; ``checkpoints`` are where the
    Spark checkpoints lie that were taken away."""

    table: str
    version: int
    now: int
    checkpoints: tuple[str, ...] = ()


def restore(spark: SparkSession, config: Config, table: str, which: str) -> Restored:
    """Bring a table back to a version or a time.

    Raises ConfigError or TableError where that is not there (any more) or cannot be right, TrimmedError where Kafka lacks what
    would have to be read again. Nothing is changed then.
    """
    configured = config.table(table)
    path = identity_of(spark, config, table).path
    version = resolve(spark, path, table, which)
    _check_files(spark, path, table, version)
    if configured.layer == "bronze":
        return _bronze(spark, config, configured, path, version)
    if configured.merge is not None:
        return _silver(spark, config, configured, path, version)
    if not tables.is_refreshed(configured):
        raise TableError(
            f"{table} cannot be restored: it follows its sources step by step, and they would not be where it is. Delete it and "
            "its Spark checkpoint, and the next run computes it from them"
        )
    return Restored(table, version, _restore(spark, path, table, version, {f"headrace_{RESTORED}": version}))


def _bronze(spark: SparkSession, config: Config, table: TableConfig, path: str, version: int) -> Restored:
    state = check_bronze(spark, config, table, path, version)
    checkpoint = SparkCheckpoint(spark, tables.checkpoint_path(config, table.name))
    newest, running = tables.bronze_state(spark, path), checkpoint.query_id()
    for query in sorted({one for one in (running, newest.query if newest else None) if one}):
        fence(spark, path, table.name, query)
    now = _restore(spark, path, table.name, version, json.loads(state.to_json()) | {RESTORED: version})
    if checkpoint.query_id() not in (None, running):
        raise TableError(f"{table.name} was started while it was being restored: stop the job, then restore it again")
    readers = [SparkCheckpoint(spark, tables.checkpoint_path(config, name)) for name in _merging(config, table.name)]
    moved = [one.take_away("before-restore") for one in (checkpoint, *readers)]
    return Restored(table.name, version, now, tuple(one for one in moved if one))


def check_bronze(spark: SparkSession, config: Config, table: TableConfig, path: str, version: int) -> BronzeState:
    """The state to go back to, after checking that everything since then can be read again and that nothing counts it twice."""
    for other in config.tables.values():
        if table.name in other.sources and other.merge is None and not tables.is_refreshed(other):
            raise TableError(
                f"{table.name} cannot be restored: {other.name} follows its rows one by one and would count those that are read "
                f"again twice. Delete {other.name} and its Spark checkpoint first; it is computed anew"
            )
    then = _state_at(spark, path, version)
    now = tables.bronze_state(spark, path) or BronzeState()
    with ControlLog(config.connection, config.stream(table.sources[0])) as control:
        control.check_topic_ids()
        for topic, known in now.topic_ids.items():
            if control.map.topic_ids.get(topic) not in (None, known):
                raise StreamConflictError(f"{table.name} cannot be restored: topic {topic} was deleted and created again since")
    begins = assignment.positions(then.next)
    read = assignment.positions(now.next)
    for place, (low, _) in sorted(bounds(config.connection, read).items()):
        begin = begins.get(place, 0)
        if low > begin and read[place] > begin:
            raise TrimmedError(
                f"{table.name} cannot be restored to version {version}: it would read {place[0]}/{place[1]} again from offset "
                f"{begin}, and Kafka's retention has removed everything below {low}: those records would be lost"
            )
    return then


def _state_at(spark: SparkSession, path: str, version: int) -> BronzeState:
    """The state after a version, as a state that no commit of its own adds to."""
    commit = newest_commit_of_ours(spark, path, version)
    if commit is None or commit.metadata is None:
        return BronzeState()  # before the first micro-batch
    state = tables.state_of(spark, path, commit)
    return replace(state, surveyed=Counts(), stamped=0, partly=0, before=state.totals, after=None)


def _silver(spark: SparkSession, config: Config, table: TableConfig, path: str, version: int) -> Restored:
    source = config.table(table.sources[0]).name
    _check_source_kept(spark, config, table, path, version, source)
    checkpoint = SparkCheckpoint(spark, tables.checkpoint_path(config, table.name))
    moved = [checkpoint.take_away("before-restore")]
    now = _restore(spark, path, table.name, version, {f"headrace_{RESTORED}": version})
    moved.append(checkpoint.take_away("before-restore"))
    return Restored(table.name, version, now, tuple(one for one in moved if one))


def _check_source_kept(
    spark: SparkSession, config: Config, table: TableConfig, path: str, version: int, source: str
) -> None:
    """What silver merged since the version has to be in bronze still: retention may have deleted it."""
    source_path = tables.table_path(config, source)
    retention = Retention.load(spark, source_path)
    if retention is None:
        return
    commit = newest_commit_of_ours(spark, path, version)
    merged = (commit.metadata or {}).get("source_version") if commit else None
    of_source = read_commit(spark, source_path, int(merged)) if merged is not None else None
    if of_source is None or datetime.fromtimestamp(of_source.at_ms / 1000, UTC) < retention.cutoff:
        raise TableError(
            f"{table.name} cannot be restored to version {version}: {source} has deleted rows by age that were merged after it "
            f"(those from before {retention.cutoff.isoformat(timespec='seconds')}), and they could not be merged again"
        )


def _merging(config: Config, bronze: str) -> list[str]:
    return [one.name for one in config.tables.values() if one.merge is not None and bronze in one.sources]


def _check_files(spark: SparkSession, path: str, table: str, version: int) -> None:
    """Before anything is changed: all files of the version are on the disk."""
    try:
        rows = spark.read.format("delta").option("versionAsOf", version).load(path)
        files = rows.inputFiles()
    except Exception as error:
        raise TableError(f"version {version} of {table} is gone: {first_line(error)}") from error
    jvm = spark._jvm
    assert jvm is not None
    for name in files:
        at = jvm.org.apache.hadoop.fs.Path(jvm.java.net.URI(name))
        if not at.getFileSystem(spark._jsc.hadoopConfiguration()).exists(at):
            raise TableError(
                f"version {version} of {table} is gone: VACUUM has removed files of it, {name.rpartition('/')[2]} for one. "
                f"`headrace table history {table}` shows the versions; those since the files left can be restored"
            )


def _restore(spark: SparkSession, path: str, table: str, version: int, metadata: dict[str, object]) -> int:
    own = spark.newSession()
    own.conf.set(USER_METADATA, json.dumps(metadata))
    try:
        own.sql(f"RESTORE TABLE delta.`{path}` TO VERSION AS OF {version}").collect()
    except Exception as error:
        raise TableError(f"{table} could not be restored to version {version}: {first_line(error)}") from error
    return tables.version(spark, path)
