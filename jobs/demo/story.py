"""The demo from start to proof. This file only orders the acts; each has a file of its own.

stack and Spark up → tables follow while a producer puts, is killed halfway and starts again, shards of its stream are split
and merged, and tables are maintained → catch up → gold → late readings → proof
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

from pyspark.sql import SparkSession

from connectors.nycflights import export_references
from jobs.demo import interrupts
from jobs.demo.expected import Expected, expect
from jobs.demo.found import STREAMS, find
from jobs.demo.maintaining import maintaining
from jobs.demo.producing import ProducerProcess, Progress
from jobs.demo.proof import prove
from jobs.demo.report import Display, summary
from jobs.demo.resharding import split_and_merge
from jobs.demo.workspace import Workspace
from jobs.maintain import in_words
from jobs.progress import TableProgress
from jobs.run import run_tables
from jobs.session import spark_session
from jobs.tables import table_path, version
from pipeline.config import Config
from pipeline.local import stack
from pipeline.reshard.control_log import create_stream

FOLLOWING = ("bronze.flights", "bronze.weather", "silver.flights", "silver.weather")
HOLD_SHARE = 0.75  # the first producer does not go further, so that the kill at half finds it running


def tell(place: Workspace, rows: int | None, display: Display) -> dict[str, Any]:
    """Run the demo in a fresh workspace; the result as ``--json`` prints it. Raises HeadraceError."""
    started = time.monotonic()
    with ThreadPoolExecutor(1) as background, _kafka(place, display), _spark(place, display) as spark:
        display.say("Recomputing from the source data with pandas what the tables have to hold, meanwhile")
        expecting = background.submit(expect, rows)
        config = place.config()
        export_references(place.references)
        for stream in STREAMS:
            create_stream(config.connection, config.stream(stream))
        expected = expecting.result()
        acknowledged = _stream(spark, config, place, rows, expected, display)
        with display.step("Catching up, then gold: whatever is left in Kafka goes through all tables"):
            run_tables(spark, config, None, "available-now", on_progress=_bars(display))
        before = version(spark, table_path(config, "silver.weather"))
        with display.step(f"Late: {expected.put_late:,} readings come in when their hours are closed"):
            acknowledged |= _put_late(place, rows)
            run_tables(spark, config, None, "available-now", on_progress=_bars(display))
        with display.step("Proof: every figure against the recomputed one"):
            found = find(spark, config, acknowledged, before)
            differences = prove(expected, found)
    return summary(found, differences, time.monotonic() - started)


def _stream(
    spark: SparkSession, config: Config, place: Workspace, rows: int | None, expected: Expected, display: Display
) -> dict[str, int]:
    """Put everything, with a kill on the way, while bronze and silver follow; how many records were acknowledged."""
    totals = {"flights": expected.events, "weather": len(expected.weather)}
    for stream, total in totals.items():
        display.bar(f"put {stream}", total)
    for table in FOLLOWING[:2]:
        display.bar(table, expected.tables[table])

    def progress(stream: str, at: Progress) -> None:
        display.advance_to(f"put {stream}", at.put + 1)

    half, hold_at = expected.events // 2, int(expected.events * HOLD_SHARE)
    with _following(spark, config, display) as check, maintaining(spark, config, FOLLOWING, check) as maintenance:
        display.say(
            f"Putting {expected.events:,} flight events and {len(expected.weather):,} hours of weather, while Spark follows"
        )
        with ProducerProcess(place, rows, hold_at, progress, hold_late=True) as producer:
            last = producer.kill_when(lambda at: at.acknowledged >= half and at.put > at.stored, check)
        display.say(
            f"Killed the producer (SIGKILL) after it had put {last.put + 1:,} events, {last.acknowledged + 1:,} of them "
            f"acknowledged; it starts again from its stored position, {last.stored + 1:,}"
        )
        with ThreadPoolExecutor(1) as hands, ProducerProcess(place, rows, None, progress, hold_late=True) as producer:
            resharding = hands.submit(split_and_merge, config, "flights")
            done = producer.finish(check)
            display.say(f"{resharding.result()}; all events are acknowledged")
        for maintained in maintenance.result():
            display.say(f"OPTIMIZE and VACUUM beside the jobs: {in_words(maintained)}")
    return {stream: done[stream].acknowledged + 1 for stream in STREAMS}


def _put_late(place: Workspace, rows: int | None) -> dict[str, int]:
    with ProducerProcess(place, rows, None, lambda stream, at: None) as producer:
        done = producer.finish(lambda: None)
    return {stream: done[stream].acknowledged + 1 for stream in STREAMS}


@contextmanager
def _following(spark: SparkSession, config: Config, display: Display) -> Iterator[Any]:
    """Bronze and silver run continuously in a thread; gives a function that raises what failed there."""
    stop, failures = threading.Event(), []

    def follow() -> None:
        try:
            run_tables(spark, config, FOLLOWING, "continuous", stop=stop, on_progress=_bars(display))
        except BaseException as error:  # noqa: BLE001 - handed to the thread that waits
            failures.append(error)

    def check() -> None:
        if failures:
            raise failures[0]

    thread = threading.Thread(target=follow, name="tables")
    thread.start()
    try:
        yield check
    finally:
        stop.set()
        thread.join()
    check()


def _bars(display: Display) -> Any:
    def progress(table: TableProgress) -> None:
        display.advance_to(table.table, table.records)

    return progress


@contextmanager
def _kafka(place: Workspace, display: Display) -> Iterator[None]:
    """The embedded stack; the workspace takes it down in the end."""
    with display.step("Starting Kafka and the schema registry"):
        stack.up(place.home, say=display.say)
    yield


@contextmanager
def _spark(place: Workspace, display: Display) -> Iterator[SparkSession]:
    with display.step("Starting Spark"):
        spark = spark_session("headrace demo", log_file=place.logs / "spark.log")
    if threading.current_thread() is threading.main_thread():
        interrupts.install()
    try:
        yield spark
    finally:
        spark.stop()
