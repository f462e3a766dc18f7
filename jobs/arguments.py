"""The command line that the jobs share, for spark-submit and for people."""

from __future__ import annotations

import argparse
import json
import logging
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from types import FrameType

from pipeline import logs
from pipeline.config import Config, load_config
from pipeline.errors import ConfigError, HeadraceError


def run_layer(layer: str, arguments: list[str] | None) -> int:
    """``main`` of bronze.py, silver.py and gold.py: the tables of one layer. Returns the exit code."""
    parser = argparse.ArgumentParser(prog=f"jobs/{layer}.py", description=f"Write the {layer} tables of headrace.yml.")
    parser.add_argument("--table", action="append", default=[], help=f"such as {layer}.flights; default: every {layer} table")
    return _run(parser, arguments, layer)


def run_all(arguments: list[str] | None) -> int:
    """``main`` of run.py: tables of every layer."""
    parser = argparse.ArgumentParser(prog="jobs/run.py", description="Write the tables of headrace.yml in one Spark.")
    parser.add_argument("table", nargs="*", help="such as silver.flights; default: all")
    return _run(parser, arguments, None)


@contextmanager
def stop_on_signals() -> Iterator[threading.Event]:
    """An event that SIGTERM and SIGINT set; a second one ends the process at once. In the main thread only."""
    stop = threading.Event()

    def handle(number: int, _frame: FrameType | None) -> None:
        if stop.is_set():
            raise SystemExit(128 + number)
        stop.set()

    before = {number: signal.signal(number, handle) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def select(config: Config, tables: list[str], layer: str | None) -> list[str]:
    """The tables meant, in headrace.yml's order. Raises ConfigError for one that is not there, or of another layer."""
    chosen = tables or [name for name, table in config.tables.items() if layer in (None, table.layer)]
    for name in chosen:
        if layer not in (None, config.table(name).layer):
            raise ConfigError(f"{name} is not a {layer} table: use jobs/{config.table(name).layer}.py")
    if not chosen:
        raise ConfigError(f"{config.path}: there are no {layer + ' ' if layer else ''}tables: add some under `tables:`")
    return [name for name in config.tables if name in chosen]


def _run(parser: argparse.ArgumentParser, arguments: list[str] | None, layer: str | None) -> int:
    parser.add_argument("--config", default=None, help="headrace.yml (default: HEADRACE_CONFIG, then headrace.yml here)")
    parser.add_argument("--mode", default="continuous", help="continuous, available-now, or an interval such as 10s")
    parser.add_argument("--json", action="store_true", help="print one JSON object at the end, and logs as JSON")
    options = parser.parse_args(arguments)
    logs.configure(role="jobs", as_json=True if options.json else None)
    logging.getLogger("py4j").setLevel(logging.ERROR)
    from jobs.run import run_tables
    from jobs.session import spark_session

    try:
        config = load_config(options.config)
        chosen = select(config, options.table, layer)
        spark = spark_session("headrace", warehouse=config.warehouse)
        try:
            with stop_on_signals() as stop:
                done = run_tables(spark, config, chosen, options.mode, stop)
        finally:
            spark.stop()
    except HeadraceError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    if options.json:
        sys.stdout.write(json.dumps({name: asdict(progress) for name, progress in done.items()}) + "\n")
        return 0
    for progress in done.values():
        sys.stdout.write(f"{progress.table}: version {progress.version}, {progress.records:,} records\n")
    return 0
