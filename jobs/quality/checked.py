"""Rules of a bronze table. Bronze keeps every record, so they warn or stop; the rows stay as they are."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from pyspark import StorageLevel
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from jobs import tables
from jobs.quality import results
from jobs.quality.judge import Judge
from jobs.references import References
from jobs.tables import REJECTED
from pipeline.config import Config


class Checked:
    """Raises ConfigError for rules that do not fit the table's columns. The table is there. One thread at a time."""

    def __init__(self, spark: SparkSession, config: Config, table: str) -> None:
        self._spark, self._config, self._table = spark, config, table
        self._path = tables.table_path(config, table)
        self._references = References(spark, config)
        self._judge: Judge | None = None
        if config.table(table).expect:
            shape = self._stored().where("false").drop(REJECTED)
            self._judge = Judge(spark, config.table(table), self._references, shape)
            results.create(spark, config)

    @contextmanager
    def before(self, rows: DataFrame, micro_batch: int, query: str) -> Iterator[DataFrame]:
        """The same rows, to be written after the rules have looked at the good ones and their results are kept; decoded once.

        Raises RuleError where a rule says stop; nothing was written then.
        """
        if self._judge is None:
            yield rows
            return
        rows = rows.persist(StorageLevel.MEMORY_AND_DISK)
        try:
            outcomes = self._judge.outcomes(self._judge.judged(_good(rows), lambda: _good(self._stored())))
            self._judge.stop_if_told(outcomes)
            self._judge.tell(outcomes)
            results.append(self._spark, self._config, self._table, query, micro_batch, outcomes)
            results.count(self._table, outcomes)
            yield rows
        finally:
            rows.unpersist()

    def close(self) -> None:
        self._references.close()

    def _stored(self) -> DataFrame:
        return self._spark.read.format("delta").load(self._path)


def _good(rows: DataFrame) -> DataFrame:
    return rows.where(F.col(f"{REJECTED}.reason").isNull()).drop(REJECTED)
