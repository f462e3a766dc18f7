"""Between bronze rows and silver rows: ``transform:``, then ``expect:``.

For one micro-batch, in this order: transform → judge → stop, where a rule says so and before anything is written → keep what
failed (``<table>__rejected``, ``<table>__quarantine``) → results → give the rest on. Each of these writes changes nothing when it
is made again, and the table's own comes last: a crash in between repeats, and loses nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from pyspark import StorageLevel
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql import types as T

from jobs import tables
from jobs.quality import results
from jobs.quality.judge import Judge, Outcome
from jobs.references import References
from jobs.rejects import QUARANTINE_SUFFIX, REASONS, REJECTED_SUFFIX, Companion, same_position
from jobs.tables import META, REJECTED
from jobs.transform import FAILED, Transform
from pipeline import metrics
from pipeline.config import Config
from pipeline.config.quality import OnFail

log = logging.getLogger("headrace.jobs")
_NO_REASON = f"{REJECTED}.reason"
_HOLDING: tuple[OnFail, ...] = ("quarantine", "drop")


class Intake:
    """Steps and rules of one silver table. One thread at a time.

    Raises ConfigError where a step or a rule does not fit the columns of bronze, before any row is read.
    """

    def __init__(self, spark: SparkSession, config: Config, table: str) -> None:
        self.table = config.table(table)
        self._spark, self._config = spark, config
        self._source = config.table(self.table.sources[0])
        self._references = References(spark, config)
        stream = config.stream(self._source.sources[0])
        self._transform = Transform(spark, self.table, self._references, stream.key) if self.table.transform else None
        self._rejected = Companion(spark, config, table, REJECTED_SUFFIX)
        self._quarantine = Companion(spark, config, table, QUARANTINE_SUFFIX)
        self._bronze_path = tables.table_path(config, self._source.name)
        shape = self.shape(spark.read.format("delta").load(self._bronze_path))
        self._judge = Judge(spark, self.table, self._references, shape.where("false")) if self.table.expect else None
        if self._judge is not None:
            results.create(spark, config)

    def shape(self, stored: DataFrame) -> DataFrame:
        """Bronze rows as silver will see them, whether they are good or not. Nothing is computed."""
        if self._transform is None:
            return stored
        return _as_bronze(self._transform.apply(stored).drop(FAILED), stored)

    @contextmanager
    def taken(self, stored: DataFrame, micro_batch: int, query: str) -> Iterator[DataFrame]:
        """The rows of a micro-batch of bronze that silver should have; all others are where they belong by then.

        Raises RuleError where a rule says stop; nothing was written then.
        """
        if self._transform is None and self._judge is None:
            yield stored
            return
        rows, failed = self._transformed(stored)
        judged = rows if self._judge is None else self._judge.judged(rows, self._before(stored))
        is_dear = any(part is not None and part.is_dear for part in (self._transform, self._judge))
        if is_dear:
            judged = judged.persist(StorageLevel.MEMORY_AND_DISK)
        try:
            outcomes = self._look(judged)
            if failed is not None:
                self._keep_rejected(stored, failed, micro_batch)
            if self._judge is not None:
                self._keep_quarantined(self._judge, judged, outcomes, micro_batch)
                results.append(self._spark, self._config, self.table.name, query, micro_batch, outcomes)
                results.count(self.table.name, outcomes)
            yield self._passing(judged, stored, outcomes)
        finally:
            if is_dear:
                judged.unpersist()

    def again(self, rows: DataFrame, *, transform: bool) -> DataFrame:
        """Rows that were held, judged anew: those that pass now. ``transform``: they failed at a step, so they are bronze's."""
        stored = _as_bronze(rows.withColumn(META, _whole_meta(rows)), self._bronze())
        rows = stored.drop(REJECTED)
        if transform and self._transform is not None:
            rows = self._transform.apply(stored)
            rows = rows.where(F.col(FAILED).isNull()).drop(FAILED)
        judged = rows if self._judge is None else self._judge.judged(rows, self._before(stored))
        return self._passing(judged, stored)

    def reached(self, stored: DataFrame) -> DataFrame:
        """For audits: rows of bronze that the table should have by the steps and rules as they are now. What is held back counts
        as such only if it really is where it waits."""
        rows, _ = self._transformed(stored)
        for companion in (self._rejected, self._quarantine):
            if (waiting := companion.waiting()) is not None:
                rows = rows.alias("r").join(waiting.select(META).alias("w"), same_position("r.", "w."), "left_anti")
        if self._judge is not None and any(one.rule.on_fail == "drop" for one in self._judge.row_rules):
            judged = self._judge.judged(rows, self._before(stored))
            rows = judged.where(~self._judge.fails_any("drop")).select(*rows.columns)
        return _as_bronze(rows, stored)

    def close(self) -> None:
        self._references.close()

    # -- one micro-batch ---------------------------------------------------------------------------------------------

    def _transformed(self, stored: DataFrame) -> tuple[DataFrame, DataFrame | None]:
        """The rows that came through the steps, and those that did not."""
        good = stored.where(F.col(_NO_REASON).isNull())
        if self._transform is None:
            return good.drop(REJECTED), None
        rows = self._transform.apply(good)
        return rows.where(F.col(FAILED).isNull()).drop(FAILED), rows.where(F.col(FAILED).isNotNull())

    def _look(self, judged: DataFrame) -> list[Outcome]:
        if self._judge is None:
            return []
        outcomes = self._judge.outcomes(judged)
        self._judge.stop_if_told(outcomes)
        self._judge.tell(outcomes)
        return outcomes

    def _keep_rejected(self, stored: DataFrame, failed: DataFrame, micro_batch: int) -> None:
        marks = failed.select(META, FAILED).dropDuplicates([META]).persist()
        try:
            count = marks.count()
            if not count:
                return
            steps = ", ".join(sorted(row[0] for row in marks.select(FAILED).distinct().take(5)))
            log.warning("%s: %d rows fail at %s: they are in %s", self.table.name, count, steps, self._rejected.name)
            failed_at = F.array(f"f.{FAILED}").alias(REASONS)
            here = stored.alias("s").join(marks.alias("f"), same_position("s.", "f.")).select("s.*", failed_at)
            self._rejected.put(here.drop(REJECTED), micro_batch)
            metrics.TRANSFORM_FAILED.labels(self.table.name).inc(count)
        finally:
            marks.unpersist()

    def _keep_quarantined(self, judge: Judge, judged: DataFrame, outcomes: list[Outcome], micro_batch: int) -> None:
        if not any(one.rows_failed for one in outcomes if one.rule.on_fail == "quarantine"):
            return
        held = judged.where(judge.fails_any("quarantine"))
        fails = [one.fails for one in judge.row_rules]
        self._quarantine.put(held.withColumn(REASONS, judge.reasons()).drop(*fails), micro_batch)

    def _passing(self, judged: DataFrame, stored: DataFrame, outcomes: Sequence[Outcome] | None = None) -> DataFrame:
        """The judged rows that no rule holds back. Where ``outcomes`` say that there are no others, nothing is judged again."""
        if self._judge is not None:
            if outcomes is None or any(one.rows_failed for one in outcomes if one.rule.on_fail in _HOLDING):
                held = F.lit(False)
                for on_fail in _HOLDING:
                    held = held | self._judge.fails_any(on_fail)
                judged = judged.where(~held)
            judged = judged.drop(*(one.fails for one in self._judge.row_rules))
        return _as_bronze(judged, stored)

    def _before(self, stored: DataFrame) -> Callable[[], DataFrame]:
        """All rows of bronze as rules see them, for rules that look back."""

        def rows() -> DataFrame:
            return self._transformed(stored.sparkSession.read.format("delta").load(self._bronze_path))[0]

        return rows

    def _bronze(self) -> DataFrame:
        return self._spark.read.format("delta").load(self._bronze_path)


def _whole_meta(rows: DataFrame) -> Column:
    """``_meta`` as bronze has it, where it and its order are never null; silver's column may have been made so."""
    kind = rows.schema[META].dataType
    assert isinstance(kind, T.StructType)
    order = F.struct(*(F.col(f"{META}.order.{name}").alias(name) for name in ("generation", "offset", "index")))
    return F.struct(*((order if name == "order" else F.col(f"{META}.{name}")).alias(name) for name in kind.names))


def _as_bronze(rows: DataFrame, stored: DataFrame) -> DataFrame:
    """With the empty ``_rejected`` that rows of bronze have."""
    return rows.withColumn(REJECTED, F.lit(None).cast(stored.schema[REJECTED].dataType))
