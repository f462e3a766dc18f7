"""Explicit dedup ids of a silver table: the first record of an id counts, later ones are left out (``dedup:`` of the stream).

A Delta table beside the silver table holds the *sights*: for each id the record that was first (with a window: one whenever the
window of the one before is over). An insert-only MERGE adds those of a micro-batch before its rows are merged. A record whose
own sight is there is the first one, so a micro-batch that is done again after a crash at any point decides the same.
An id belongs to its partition key (ADR 4).
"""

from __future__ import annotations

from dataclasses import dataclass, field

from delta.tables import DeltaTable
from pyspark import StorageLevel
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F

from jobs import crash, tables
from jobs.conflicts import again_on_conflict
from jobs.maintenance.statements import turn
from jobs.merging.plan import MergePlan
from jobs.merging.pruning import KEYS_MAX, key_ranges
from jobs.merging.target import Arrived, within
from jobs.tables import META
from pipeline.config import Config, TableConfig
from pipeline.errors import TableError

_SIGHTS = (
    "id string, key string, at timestamp, ingested_at timestamp, "
    "record struct<generation: int, offset: bigint, index: int, topic: string, partition: int>"
)
_EXPIRED_EVERY = 50
"""Micro-batches from one removal of old sights to the next: each is a commit and, with its files' statistics, little work."""


def ids_table(table: str) -> str:
    """The name of the table of sights: no table of headrace.yml can have it."""
    return f"_ids.{table}"


@dataclass(slots=True)
class Sights:
    """The sights of one silver table. One thread at a time."""

    plan: MergePlan
    path: str
    _micro_batches: int = 0
    _judged: DataFrame | None = None
    _arrived: Arrived = field(default_factory=Arrived)

    @classmethod
    def open(cls, spark: SparkSession, config: Config, plan: MergePlan, silver: tables.Identity) -> Sights | None:
        """None for a stream without ``dedup:``. Raises TableError where the sights of a table with rows are gone."""
        if plan.dedup == "off":
            return None
        name = ids_table(plan.table)
        own = TableConfig.model_validate({"name": name, "from": [plan.table], "cluster_by": ["id"]})
        if silver.files and tables.find(spark, config, own, silver.id) is None:
            raise TableError(
                f"the ids that {plan.table} has seen are gone ({tables.table_path(config, name)}): repeats could not be told. "
                f"Restore them, or delete {plan.table} and its Spark checkpoint to make it anew"
            )
        schema = spark.createDataFrame([], _SIGHTS).schema
        made = tables.create(spark, config, own, silver.id, schema, statistics=("id", "at", "ingested_at"))
        return cls(plan, made.path)

    def first(self, bronze: DataFrame) -> tuple[DataFrame, int]:
        """Bronze rows without the repeats of ids seen before, and how many those were. The sights are written when it returns;
        what it holds for the rows is held until ``done``."""
        self._release()  # of a micro-batch that failed
        self._judged = self._judge(bronze).persist(StorageLevel.MEMORY_AND_DISK)
        candidates, firsts = self._judged.agg(F.sum("records"), F.sum(F.size("firsts"))).collect()[0]
        if not candidates:
            return bronze, 0
        self._note(self._judged)
        with_id = bronze.withColumns({"_id": F.col(f"{META}.id"), "_key": F.col(f"{META}.key"), "_record": _record()})
        kept = self._judged.select("id", "key", F.explode("firsts.record").alias("record"))
        same = with_id["_id"].eqNullSafe(kept["id"]) & with_id["_key"].eqNullSafe(kept["key"])
        first = with_id.where(F.col("_id").isNotNull()).join(kept, same & (with_id["_record"] == kept["record"]), "left_semi")
        rows = first.unionAll(with_id.where(F.col("_id").isNull())).drop("_id", "_key", "_record")
        return rows, int(candidates) - int(firsts)

    def done(self, bronze: DataFrame) -> None:
        """The micro-batch is merged. Now and then, forget sights that no record can repeat any more: older than the window before
        everything in it, by the records' own times and by the times when they came here (a shard may lag behind others)."""
        self._release()
        self._micro_batches += 1
        window_ms = self.plan.dedup_window_ms
        if not window_ms or self._micro_batches % _EXPIRED_EVERY:
            return
        at, ingested_at = bronze.agg(F.min(_millis(f"{META}.timestamp")), F.min(_millis(f"{META}.ingested_at"))).collect()[0]
        if at is None or ingested_at is None:
            return
        old = (F.col("at") < _moment(at - window_ms)) & (F.col("ingested_at") < _moment(ingested_at - window_ms))
        DeltaTable.forPath(bronze.sparkSession, self.path).delete(old)

    def _release(self) -> None:
        if self._judged is not None:
            self._judged.unpersist()
            self._judged = None

    def _judge(self, bronze: DataFrame) -> DataFrame:
        """One row an id: how many records have it here, and which of them are first sights."""
        seen = bronze.where(F.col(f"{META}.id").isNotNull()).select(
            F.col(f"{META}.id").alias("id"), F.col(f"{META}.key").alias("key"), _sight().alias("sight")
        )
        # Sorted by their places in the log.
        here = seen.groupBy("id", "key").agg(F.sort_array(F.collect_list("sight")).alias("seen"))
        stored = bronze.sparkSession.read.format("delta").load(self.path).where(self._where(seen))
        sights = stored.select("id", "key", F.struct("record", "at", "ingested_at").alias("sight"))
        known = sights.join(here.select("id"), "id", "left_semi").groupBy("id", "key").agg(F.collect_list("sight").alias("known"))
        same = F.col("h.id").eqNullSafe(F.col("k.id")) & F.col("h.key").eqNullSafe(F.col("k.key"))
        both = here.alias("h").join(known.alias("k"), same, "left")
        before = F.coalesce(F.col("known"), F.array().cast(here.schema["seen"].dataType))
        sights_after = F.aggregate(
            "seen", before, lambda done, one: F.when(self._is_first(done, one), F.concat(done, F.array(one))).otherwise(done)
        )
        firsts = F.filter(sights_after, lambda one: F.exists("seen", lambda other: other["record"] == one["record"]))
        return both.select("h.id", "h.key", F.size("seen").alias("records"), F.array_distinct(firsts).alias("firsts"))

    def _where(self, seen: DataFrame) -> Column:
        """Where the ids of a micro-batch can lie: ids that grow with time (UUIDv7) are found in few files."""
        low, high, count = seen.agg(F.min("id"), F.max("id"), F.count(F.lit(1))).collect()[0]
        ranges = [(low, high)]
        if count <= KEYS_MAX:
            ranges = key_ranges([row[0] for row in seen.select("id").distinct().collect()])
        self._arrived = Arrived(records=count, ranges={"id": ranges})
        return within("", self._arrived)

    def _is_first(self, sights: Column, one: Column) -> Column:
        window_ms = self.plan.dedup_window_ms

        def hides(sight: Column) -> Column:
            if window_ms is None:
                return F.lit(True)
            return F.unix_millis(one["at"]) - F.unix_millis(sight["at"]) < window_ms

        return ~F.exists(sights, hides)

    def _note(self, judged: DataFrame) -> None:
        firsts = judged.select("id", "key", F.explode("firsts").alias("first")).select("id", "key", "first.*")
        same = F.expr("t.id = s.id AND t.key <=> s.key AND t.record = s.record") & within("t.", self._arrived)

        def add() -> None:
            target = DeltaTable.forPath(judged.sparkSession, self.path).alias("t")
            target.merge(firsts.alias("s"), same).whenNotMatchedInsertAll().execute()

        crash.reach("silver.before_ids")
        with turn(self.path):
            again_on_conflict(add, ids_table(self.plan.table))
        crash.reach("silver.after_ids")


def _record() -> Column:
    """Where a record lies in the log: its identity, and what sorts those of an id."""
    order = f"{META}.order"
    return F.struct(
        F.col(f"{order}.generation").alias("generation"),
        F.col(f"{order}.offset").alias("offset"),
        F.col(f"{order}.index").alias("index"),
        F.col(f"{META}.topic").alias("topic"),
        F.col(f"{META}.partition").alias("partition"),
    )


def _sight() -> Column:
    at, ingested_at = F.col(f"{META}.timestamp").alias("at"), F.col(f"{META}.ingested_at").alias("ingested_at")
    return F.struct(_record().alias("record"), at, ingested_at)


def _millis(column: str) -> Column:
    return F.unix_millis(F.col(column))


def _moment(millis: int) -> Column:
    return F.timestamp_millis(F.lit(millis))
