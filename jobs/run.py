"""All tables of headrace.yml in one Spark: bronze, then silver, then gold.

    python -m jobs.run [TABLE…] [--config headrace.yml] [--mode continuous|available-now|10s]

Available-now goes through the layers one after the other, so silver sees all that bronze wrote. Continuous runs every bronze
and silver table as a query of its own, and every gold table in a thread of its own that looks for changes of its sources; the
first failure stops all. With `maintenance.every` the tables are maintained beside it (jobs/maintain.py); a failure of that
stops nothing.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence

from pyspark.sql import SparkSession

from jobs import crash
from jobs.arguments import run_all, select
from jobs.bronze import BronzeJob
from jobs.gold import GoldJob
from jobs.lineage import traced
from jobs.listening import listening
from jobs.maintain import maintain_every
from jobs.mode import Mode, parse_mode
from jobs.ordered import OrderedJob
from jobs.progress import OnProgress, TableProgress
from jobs.silver import SilverJob
from jobs.storage import check_reachable
from jobs.supervise import supervise
from jobs.table_metrics import TableMetrics
from jobs.tables import table_path, version
from pipeline.config import Config
from pipeline.errors import ConfigError
from pipeline.observe.endpoint import push, serve

StreamJob = BronzeJob | SilverJob | OrderedJob


def run_tables(
    spark: SparkSession,
    config: Config,
    tables: Sequence[str] | None,
    mode: str,
    stop: threading.Event | None = None,
    on_progress: OnProgress | None = None,
) -> dict[str, TableProgress]:
    """Run tables (None: all) until they are through (``available-now``) or ``stop`` is set; blocking.

    Queries stop between micro-batches. ``on_progress`` is called from their threads after each commit. Returns the last
    progress of each table. Raises what the first job that failed raised, after the others stopped.
    """
    parsed = parse_mode(mode)
    crash.arm(spark)
    stop = stop or threading.Event()
    serve(config, "jobs")
    check_reachable(spark, config.warehouse)
    chosen = _in_order(config, select(config, list(tables or ()), None))
    gold: dict[str, GoldJob] = {}
    last = {name: TableProgress(name) for name in chosen}
    figures = TableMetrics(spark, config, chosen)

    def report(progress: TableProgress) -> None:
        last[progress.table] = progress
        figures.note_commit(progress)
        if on_progress is not None:
            on_progress(progress)

    try:
        with traced(config, chosen), listening(spark, figures, frozenset(chosen)):
            for name in chosen:  # what is refused of them is refused before anything runs
                if config.table(name).layer == "gold":
                    gold[name] = GoldJob(spark, config, name, report)
            if parsed.is_bounded:
                for name in chosen:
                    if stop.is_set():
                        break
                    if name in gold:
                        gold[name].refresh()
                    else:
                        _run_one(spark, config, name, parsed, stop, report)
            else:
                streams = [name for name in chosen if name not in gold]
                _run_together(spark, config, streams, gold, parsed, stop, report)
    finally:
        if parsed.is_bounded:  # over before anybody scrapes it
            push(config, "jobs")
    return last


def _in_order(config: Config, chosen: Sequence[str]) -> list[str]:
    """Sources before what is made from them. Raises ConfigError for a circle."""
    out: list[str] = []
    waiting = sorted(chosen, key=lambda name: ("bronze", "silver", "gold").index(config.table(name).layer))
    while waiting:
        ready = [name for name in waiting if not set(config.table(name).sources) & set(waiting)]
        if not ready:
            raise ConfigError(f"tables {', '.join(waiting)} are made from each other: break the circle in `from:`")
        out += ready
        waiting = [name for name in waiting if name not in ready]
    return out


def _run_one(spark: SparkSession, config: Config, name: str, mode: Mode, stop: threading.Event, report: OnProgress) -> None:
    job = _stream_job(spark, config, name, report)
    try:
        supervise(job, mode, stop)
    finally:
        job.close()


def _run_together(
    spark: SparkSession, config: Config, chosen: Sequence[str], gold: Mapping[str, GoldJob], mode: Mode, stop: threading.Event,
    report: OnProgress,
) -> None:
    end = threading.Event()  # by the caller's stop, or by the first failure
    failures: list[Exception] = []
    streams: list[StreamJob] = []

    def guarded(work: Callable[[], None]) -> Callable[[], None]:
        def run() -> None:
            try:
                work()
            except Exception as error:  # noqa: BLE001 - raised again below, in the caller's thread
                failures.append(error)
            finally:
                end.set()

        return run

    try:
        for name in chosen:  # one by one: those made before a failure are closed too
            streams.append(_stream_job(spark, config, name, report))  # noqa: PERF401
        for one in gold.values():
            if all(_is_there(spark, config, source) for source in one.table.sources):
                one.prepare()
        work: list[Callable[[], None]] = [lambda job=job: supervise(job, mode, end) for job in streams]  # type: ignore[misc]
        work += [lambda one=one: _refresh(spark, config, gold, one, mode, end) for one in gold.values()]  # type: ignore[misc]
        if (every := config.maintenance.every) is not None:
            work.append(lambda: maintain_every(spark, config, [*chosen, *gold], every, end))
        threads = [threading.Thread(target=guarded(one), name="headrace-job") for one in work]
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads):
            if stop.wait(0.1):
                end.set()
                for thread in threads:
                    thread.join()
    finally:
        for job in streams:
            job.close()
    if failures:
        raise failures[0]


def _refresh(
    spark: SparkSession, config: Config, gold: Mapping[str, GoldJob], job: GoldJob, mode: Mode, end: threading.Event
) -> None:
    made_here = set(job.table.sources) & set(gold)
    while not all(_is_there(spark, config, source) for source in made_here):  # another thread's first step makes it
        if end.wait(0.2):
            return
    interval_s = max(mode.interval_s or 0.0, job.interval_min_s)
    while not end.is_set():
        job.refresh()
        end.wait(interval_s)


def _is_there(spark: SparkSession, config: Config, table: str) -> bool:
    return version(spark, table_path(config, table)) >= 0


def _stream_job(spark: SparkSession, config: Config, name: str, report: OnProgress) -> StreamJob:
    if config.table(name).ordered is not None:
        return OrderedJob(spark, config, name, report)
    kind = BronzeJob if config.table(name).layer == "bronze" else SilverJob
    return kind(spark, config, name, report)


def main(arguments: list[str] | None = None) -> int:
    return run_all(arguments)


if __name__ == "__main__":
    raise SystemExit(main())
