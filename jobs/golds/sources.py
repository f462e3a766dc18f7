"""What a gold table reads: where a source stands, its rows there, and what changed between two such positions.

A bronze table only grows, and its commits say up to which Kafka offsets: its new rows are those from there on, whatever
maintenance did to its files in between. Silver and gold tables change: theirs come from Delta's change data feed.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F

from jobs import tables
from jobs.commits import BronzeState, Places, newest_commit_of_ours, places_of
from jobs.tables import DELETED, FEED_PROPERTY, META, REJECTED
from pipeline.config import Config
from pipeline.errors import TableError

log = logging.getLogger("headrace.jobs")

CHANGE, VERSION = "_change_type", "_commit_version"
BEFORE = "update_preimage"
_STATISTICS = "delta.dataSkippingStatsColumns"
_FEED_GONE = (
    "DELTA_MISSING_CHANGE_DATA",
    "DELTA_CHANGE_TABLE_FEED_DISABLED",
    "DELTA_CHANGE_DATA_FEED_INCOMPATIBLE",
    "DELTA_CHANGE_DATA_FILE_NOT_FOUND",
    "DELTA_VERSION_NOT_FOUND",
    "FAILED_READ_FILE.FILE_NOT_EXIST",
)


@dataclass(frozen=True, slots=True)
class Position:
    """A source at a moment: its Delta version, the table's id (another one after it was made anew), and of bronze the next
    Kafka offsets to read."""

    version: int
    id: str
    next: Places | None = None

    def to_json(self) -> dict[str, Any]:
        out: dict[str, Any] = {"version": self.version, "id": self.id}
        if self.next is not None:  # as JSON gives it back, so that the two can be compared
            out["next"] = {topic: {str(p): at for p, at in partitions.items()} for topic, partitions in self.next.items()}
        return out

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Position:
        return cls(int(data["version"]), data["id"], places_of(data["next"]) if "next" in data else None)

    def follows(self, earlier: Position) -> bool:
        """Whether the changes from ``earlier`` to here can be told: not after the table was made anew or bronze was restored."""
        here = self.next or {}
        is_behind = any(
            here.get(topic, {}).get(partition, 0) < at
            for topic, partitions in (earlier.next or {}).items()
            for partition, at in partitions.items()
        )
        return self.id == earlier.id and self.version >= earlier.version and not is_behind


class Sources:
    """The sources of one gold table. One thread at a time."""

    def __init__(self, spark: SparkSession, config: Config, table: str) -> None:
        self._spark, self._config, self._table = spark, config, table
        self.names = list(config.table(table).sources)

    def now(self) -> dict[str, Position]:
        """Where each source stands. Raises TableError for one that is not there yet."""
        return {name: self._position(name) for name in self.names}

    def stored(self, name: str, at: Position) -> DataFrame:
        """A source's rows at a position with our own columns, without rejected and deleted ones and tombstones."""
        if at.next is None:
            rows = tables.load(self._spark, self._config, name, at.version)
            return rows.where(_is_alive()) if self._config.table(name).layer == "silver" else rows
        rows = tables.visible(tables.load(self._spark, self._config, name), "bronze")
        return rows.where(_before(at.next) & ~F.col(DELETED))

    def rows(self, name: str, at: Position) -> DataFrame:
        """A source's rows at a position as a query sees them."""
        layer = self._config.table(name).layer
        return tables.visible(tables.load(self._spark, self._config, name, at.version), layer)

    def changes(self, name: str, since: Position, until: Position) -> DataFrame:
        """The rows, as stored, that came, went or changed after ``since`` and up to ``until``, with ``_change_type``: insert,
        delete, update_preimage, update_postimage. Of bronze only inserts, without tombstones; of silver only images that were
        visible: a row that is deleted is its last image."""
        if until.next is not None:
            fresh = ~_before(since.next or {})
            return self.stored(name, until).where(fresh).withColumn(CHANGE, F.lit("insert")).withColumn(VERSION, F.lit(0))
        if since.version == until.version:
            empty = self.stored(name, until).limit(0)
            return empty.withColumn(CHANGE, F.lit("")).withColumn(VERSION, F.lit(0))
        feed = self._spark.read.format("delta").option("readChangeFeed", "true")
        feed = feed.option("startingVersion", since.version + 1).option("endingVersion", until.version)
        rows = feed.load(tables.table_path(self._config, name)).drop("_commit_timestamp")
        return rows.where(_is_alive()) if self._config.table(name).layer == "silver" else rows

    def follow_changes(self, statistics: Sequence[tuple[str, str]] = ()) -> None:
        """Have silver and gold sources keep their changes from now on, and every source the minima and maxima of its columns
        in ``statistics`` (source, column): two settings of their tables, which may be there long."""
        for name in self.names:
            wanted = {column for source, column in statistics if source == name}
            self._set(name, {} if self._config.table(name).layer == "bronze" else {FEED_PROPERTY: "true"}, wanted)

    def _set(self, name: str, wanted: dict[str, str], measured: set[str]) -> None:
        configured = self._config.table(name)
        found = tables.find(self._spark, self._config, configured, ",".join(configured.sources))
        if found is None:
            raise TableError(f"{self._table} is made from {name}, which is not there yet: run `headrace run {name}` first")
        kept = [one for one in found.properties.get(_STATISTICS, "").split(",") if one]
        if kept and not measured <= set(kept):
            wanted[_STATISTICS] = ",".join([*kept, *sorted(measured - set(kept))])
        missing = {key: value for key, value in wanted.items() if found.properties.get(key) != value}
        if missing:
            log.info("%s: set %s, for %s reads its changes", name, ", ".join(sorted(missing)), self._table)
            settings = ", ".join(f"'{key}' = '{value}'" for key, value in missing.items())
            self._spark.sql(f"ALTER TABLE delta.`{found.path}` SET TBLPROPERTIES ({settings})")

    def _position(self, name: str) -> Position:
        configured = self._config.table(name)
        found = tables.find(self._spark, self._config, configured, ",".join(configured.sources))
        if found is None:
            raise TableError(f"{self._table} is made from {name}, which is not there yet: run `headrace run {name}` first")
        if configured.layer != "bronze":
            return Position(tables.version(self._spark, found.path), found.id)
        commit = newest_commit_of_ours(self._spark, found.path)
        if commit is None or commit.metadata is None:
            return Position(tables.version(self._spark, found.path), found.id, {})
        return Position(commit.version, found.id, BronzeState.from_json(commit.metadata).next)


def feed_is_gone(error: Exception) -> bool:
    """Whether an error says that the change data feed of some versions cannot be read any more: a table has to be made anew."""
    return any(sign in str(error) for sign in _FEED_GONE)


def _is_alive() -> Column:
    """Silver rows that are neither tombstones nor dead letters."""
    return ~F.col(DELETED) & F.col(f"{REJECTED}.reason").isNull()


def _before(next_: Places) -> Column:
    """Bronze rows below the next offsets to read."""
    offset, condition = F.col(f"{META}.order.offset"), F.lit(False)
    for topic, partitions in next_.items():
        for partition, at in partitions.items():
            here = (F.col(f"{META}.topic") == topic) & (F.col(f"{META}.partition") == partition)
            condition = condition | (here & (offset < at))
    return condition
