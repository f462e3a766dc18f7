"""Gold: queries over silver, event-time windows and joined streams; jobs/golds has a file for each.

    spark-submit … jobs/gold.py --config headrace.yml [--table gold.delays] [--mode continuous|available-now|10s]

What a table was made from stands in the metadata of its commits: as long as that is the same, nothing is done; a step that was
killed is done again and gives the same rows.
"""

from __future__ import annotations

from typing import Protocol

from pyspark.sql import SparkSession

from jobs import tables
from jobs.arguments import run_layer
from jobs.commits import newest_commit_of_ours
from jobs.golds.joins import JoinGold
from jobs.golds.refresh import QueryGold
from jobs.golds.windows import WindowGold
from jobs.progress import OnProgress, TableProgress
from pipeline.config import Config

REFRESH_INTERVAL_MIN_S = 5.0
"""A query is not run anew for every micro-batch of its sources."""


class _Kind(Protocol):
    def prepare(self) -> None: ...

    def step(self) -> bool: ...


class GoldJob:
    """Steps of one gold table. One thread at a time.

    Raises ConfigError or TableError for a definition that is refused: SQL that writes, a function that is not there.
    """

    def __init__(self, spark: SparkSession, config: Config, table: str, on_progress: OnProgress | None = None) -> None:
        self.table = config.table(table)
        self.name = table
        self._spark = spark.newSession()  # its views and settings are its own
        self._on_progress = on_progress
        self._path = tables.table_path(config, table)
        self._steps = 0
        kind = WindowGold if self.table.window else JoinGold if self.table.join else QueryGold
        self._kind: _Kind = kind(self._spark, config, self.table)

    @property
    def interval_min_s(self) -> float:
        """How long to wait between two steps at least."""
        return 0.0 if self.table.window or self.table.join else REFRESH_INTERVAL_MIN_S

    def prepare(self) -> None:
        """Set in the sources' tables what this one needs, before queries run that a change of them would stop.
        Raises ConfigError or TableError."""
        self._kind.prepare()

    def refresh(self) -> bool:
        """Bring the table up to its sources. Returns whether there was anything to do.

        Raises TableError where a source is not there yet, or the definition does not fit them.
        """
        changed = self._kind.step()
        self._steps += changed
        self._report()
        return changed

    def _report(self) -> None:
        commit = newest_commit_of_ours(self._spark, self._path)
        if self._on_progress is None or commit is None:
            return
        late, watermark_us = self._kind.late() if isinstance(self._kind, WindowGold | JoinGold) else (0, None)
        self._on_progress(
            TableProgress(
                self.name,
                micro_batches=self._steps,
                version=commit.version,
                records=commit.rows,
                late=late,
                watermark_us=watermark_us,
            )
        )


def main(arguments: list[str] | None = None) -> int:
    return run_layer("gold", arguments)


if __name__ == "__main__":
    raise SystemExit(main())
