"""Who reads a table by its versions: our own streams, known by their Spark checkpoints, and readers registered by name.

A reader stands at a version: everything up to it is processed. VACUUM may only remove files that no reader will ask for.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from pyspark.sql import SparkSession

from jobs import tables
from jobs.checkpoint import SparkCheckpoint
from jobs.commits import Places, newest_commit_of_ours, places_of, versions
from jobs.maintenance.notes import FOLDER
from jobs.storage import names, read_text, remove, write_text
from pipeline.config import Config, TableConfig
from pipeline.errors import ConfigError, TableError

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
READERS_MAX = 1_000


@dataclass(frozen=True, slots=True)
class Reader:
    """``kind`` is ``stream`` (a table of headrace.yml) or ``registered``; ``noted_at`` is in ISO 8601, of the latter."""

    name: str
    version: int
    kind: str
    noted_at: str | None = None


def readers_of(spark: SparkSession, config: Config, table: str) -> list[Reader]:
    """All readers of a table and where they stand. A table that was made but never run reads nothing yet."""
    identity = identity_of(spark, config, table)
    out = []
    for other in config.tables.values():
        if table in other.sources:
            stands_at = SparkCheckpoint(spark, tables.checkpoint_path(config, other.name)).stands_at(identity.id)
            position = followed(spark, config, other, table)
            if stands_at is None and position is not None:
                stands_at = int(position["version"])
            if stands_at is not None:
                out.append(Reader(other.name, stands_at, "stream"))
    folder = f"{identity.path}/{FOLDER}/readers"
    for name in names(spark, folder):
        text = read_text(spark, f"{folder}/{name}") if name.endswith(".json") else None
        if text is not None:
            out.append(Reader(**json.loads(text)))
    return out


def followed(spark: SparkSession, config: Config, reader: TableConfig, table: str) -> Mapping[str, Any] | None:
    """Where a table without a Spark checkpoint stands in a source, as its newest commit says (``positions``): a version, and of
    bronze the next Kafka offsets. None where it notes no such thing, or is computed anew as a whole."""
    if reader.layer != "gold" or tables.is_refreshed(reader):
        return None
    commit = newest_commit_of_ours(spark, tables.table_path(config, reader.name))
    about = (commit.metadata or {}) if commit is not None else {}
    positions = about.get("positions") or (about.get("inputs") or {}).get("positions") or {}
    found = positions.get(table)
    return found if isinstance(found, dict) else None


def unread_from(spark: SparkSession, config: Config, table: str) -> list[Places]:
    """The next Kafka offsets of the tables that follow a bronze table's rows by them: those have to stay."""
    found = (followed(spark, config, one, table) for one in config.tables.values() if table in one.sources)
    return [places_of(position["next"]) for position in found if position is not None and "next" in position]


def register(spark: SparkSession, config: Config, table: str, name: str, version: int) -> Reader:
    """Note that a reader has processed everything up to a version, replacing what it said before.

    Raises ConfigError for a bad name, TableError for a version that is not there.
    """
    _check_name(name)
    path = identity_of(spark, config, table).path
    there = versions(spark, path)
    if not there[0] <= version <= there[-1]:
        raise TableError(f"{table} has versions {there[0]} to {there[-1]}, not {version}: name the last one that {name} has read")
    if len(names(spark, f"{path}/{FOLDER}/readers")) >= READERS_MAX:
        raise TableError(f"{table} has {READERS_MAX:,} registered readers: forget those that are gone (`headrace table forget`)")
    reader = Reader(name, version, "registered", datetime.now(UTC).isoformat(timespec="seconds"))
    write_text(spark, _file(path, name), json.dumps(asdict(reader)))
    return reader


def forget(spark: SparkSession, config: Config, table: str, name: str) -> None:
    """A registered reader reads no more. Raises TableError where it was not registered."""
    _check_name(name)
    path = identity_of(spark, config, table).path
    if read_text(spark, _file(path, name)) is None:
        raise TableError(f"{table} has no registered reader {name!r}: `headrace table readers {table}` lists them")
    remove(spark, _file(path, name))


def identity_of(spark: SparkSession, config: Config, table: str) -> tables.Identity:
    """The table as it is. Raises TableError where it is not there."""
    configured = config.table(table)
    found = tables.find(spark, config, configured, ",".join(configured.sources))
    if found is None:
        raise TableError(f"table {table} is not there yet: run `headrace run {table}` first")
    return found


def _check_name(name: str) -> None:
    if not NAME.fullmatch(name):
        raise ConfigError(f"a reader's name has letters, digits, dots, - and _, 100 at most; not {name!r}")


def _file(path: str, name: str) -> str:
    return f"{path}/{FOLDER}/readers/{name}.json"
