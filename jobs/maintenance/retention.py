"""What leaves a bronze table by age: whole rows, and the raw bytes of dead letters.

Rows go from the beginning of each partition up to a *floor*, so that what is left is all records from an offset on, and an audit
can still account for each of them. The floors are noted before the rows are deleted. Of a dead letter, position and reason stay
as long as its row does: that a record was rejected, and why, is part of the proof.

A stream that reads the table does not see a deletion (it skips such commits), and gets rows that it has yet to read from the
files as they were, which VACUUM leaves to it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from jobs.assignment import nested, positions
from jobs.commits import Places
from jobs.maintenance.notes import read_note, write_note
from jobs.maintenance.statements import session, statement
from jobs.tables import META, REDRIVEN, REJECTED, has_redriven, log_place
from pipeline.model.shards import Place

NOTE = "retention"
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Retention:
    """What was deleted so far: in each place everything below its floor, all of it read from Kafka before ``cutoff``."""

    floors: Mapping[Place, int]
    cutoff: datetime

    @classmethod
    def load(cls, spark: SparkSession, path: str) -> Retention | None:
        note = read_note(spark, path, NOTE)
        if note is None:
            return None
        floors = {topic: {int(p): int(at) for p, at in places.items()} for topic, places in note["floors"].items()}
        return cls(positions(floors), datetime.fromisoformat(note["cutoff"]))

    def raised(self, floors: Mapping[Place, int], cutoff: datetime) -> Retention:
        """The same after more was deleted; a floor never falls."""
        both = {place: max(self.floors.get(place, 0), floors.get(place, 0)) for place in {*self.floors, *floors}}
        return Retention(both, max(self.cutoff, cutoff))

    def to_json(self) -> dict[str, Any]:
        return {"floors": nested(self.floors), "cutoff": self.cutoff.isoformat()}


def delete_rows(
    spark: SparkSession, path: str, keep: timedelta, now: datetime, unread_from: Sequence[Places] = ()
) -> int:
    """Delete rows that were read from Kafka before ``now - keep``; from the offsets in ``unread_from`` on, they stay. Returns
    how many."""
    cutoff = now - keep
    floors = capped(_floors(spark, path, cutoff), unread_from)
    if not floors:
        return 0
    before = Retention.load(spark, path) or Retention({}, cutoff)
    write_note(spark, path, NOTE, before.raised(floors, cutoff).to_json())
    own = session(spark, {"step": "retention", "cutoff": cutoff.isoformat()})
    at = _place_sql(own.read.format("delta").load(path))
    below = " OR ".join(
        f"({at['topic']} = '{topic}' AND {at['partition']} = {partition} AND {at['offset']} < {floor})"
        for (topic, partition), floor in sorted(floors.items())
    )
    # The time says nothing new, but files have statistics of it: those of newer rows are not read.
    old = f"{META}.ingested_at < {_literal(cutoff)}"
    return int(statement(own, f"DELETE FROM delta.`{path}` WHERE {old} AND ({below})")[0][0])


def capped(floors: Mapping[Place, int], unread_from: Sequence[Places]) -> dict[Place, int]:
    """Floors no higher than what every follower has read; a place that one has not read at all has none."""
    read = [positions(one) for one in unread_from]
    lower = {place: min([floor, *(one.get(place, 0) for one in read)]) for place, floor in floors.items()}
    return {place: floor for place, floor in lower.items() if floor > 0}


def expire_dead_letters(spark: SparkSession, path: str, keep: timedelta, now: datetime) -> int:
    """Delete the raw bytes of rows that were rejected before ``now - keep``. Returns of how many rows."""
    cutoff = now - keep
    own = session(spark, {"step": "dead letters", "cutoff": cutoff.isoformat()})
    old = f"{REJECTED}.reason IS NOT NULL AND {REJECTED}.raw IS NOT NULL AND {META}.ingested_at < {_literal(cutoff)}"
    if own.read.format("delta").load(path).where(old).isEmpty():
        return 0
    return int(statement(own, f"UPDATE delta.`{path}` SET {REJECTED}.raw = NULL WHERE {old}")[0][0])


def _floors(spark: SparkSession, path: str, cutoff: datetime) -> dict[Place, int]:
    """For each place with rows to delete, the first offset that stays. Micro-batches follow each other, so all rows below it are
    older than the cutoff; were a clock set back in between, newer rows hold the floor down."""
    rows = spark.read.format("delta").load(path)
    is_old = F.col(f"{META}.ingested_at") < F.lit(cutoff)
    place = log_place(rows)
    offset = place["offset"]
    found = rows.groupBy(place["topic"].alias("topic"), place["partition"].alias("partition")).agg(
        F.max(F.when(is_old, offset)).alias("old"), F.min(F.when(~is_old, offset)).alias("kept"), F.min(offset).alias("first")
    )
    out: dict[Place, int] = {}
    for row in found.where("old IS NOT NULL AND topic IS NOT NULL").collect():
        floor = row["old"] + 1 if row["kept"] is None else min(row["old"] + 1, row["kept"])
        if row["first"] < floor:
            out[row["topic"], row["partition"]] = floor
    return out


def _place_sql(rows: DataFrame) -> dict[str, str]:
    """``log_place`` as text."""
    own = {"topic": "topic", "partition": "partition", "offset": "order.offset"}
    if not has_redriven(rows):
        return {name: f"{META}.{field}" for name, field in own.items()}
    return {name: f"coalesce({META}.{REDRIVEN}.{name}, {META}.{field})" for name, field in own.items()}


def _literal(at: datetime) -> str:
    return f"timestamp_micros({(at - _EPOCH) // timedelta(microseconds=1)})"
