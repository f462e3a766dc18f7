"""OPTIMIZE and VACUUM of the demo's tables beside the jobs that write them, as `headrace maintain` does it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager

from pyspark.sql import SparkSession

from jobs.maintain import Maintained, maintain
from jobs.tables import table_path, version
from pipeline.config import Config

_LOOK_EVERY_S = 0.5
_WRITTEN = 1
"""A table's version once it has rows: the one before made it."""


@contextmanager
def maintaining(
    spark: SparkSession, config: Config, tables: Sequence[str], check: Callable[[], None]
) -> Iterator[Future[list[Maintained]]]:
    """Within, each table is maintained once, when rows are in it; the future tells what was done. ``check`` is called now
    and then and may raise: what writes the tables may have failed. Leaving does not wait for rows that have not come."""
    stop = threading.Event()

    def work() -> list[Maintained]:
        done: list[Maintained] = []
        for table in tables:
            while version(spark, table_path(config, table)) < _WRITTEN and not stop.wait(_LOOK_EVERY_S):
                check()
            if not stop.is_set():
                done += maintain(spark, config, [table])
        return done

    with ThreadPoolExecutor(1, "maintenance") as hands:
        try:
            yield hands.submit(work)
        finally:
            stop.set()
