"""A bronze table's Spark checkpoint made anew from the state in the table's newest commit.

    headrace table rebuild-checkpoint bronze.flights [--json]

For after a loss, or where checkpoint and table no longer belong together. Nothing is asked of Kafka and no row is touched: the
next start checks the positions against the topics, reads on there, and drops repeats by the marks in the same commit.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
from dataclasses import asdict, dataclass

from pyspark.sql import SparkSession

from jobs import tables
from jobs.checkpoint import Owner, SparkCheckpoint
from jobs.commits import Places
from pipeline import logs
from pipeline.config import Config, load_config
from pipeline.errors import ConfigError, HeadraceError, TableError


@dataclass(frozen=True, slots=True)
class Rebuilt:
    """``query`` is the new checkpoint's; ``positions`` are the next offsets to read; the old one was ``moved_to`` a name
    beside it, or was not there (None)."""

    table: str
    checkpoint: str
    query: str
    moved_to: str | None
    positions: Places


def rebuild(spark: SparkSession, config: Config, table: str) -> Rebuilt:
    """Make the checkpoint anew, with the table's query stopped: a running one notices and stops with an error.

    Raises ConfigError for a table that keeps no positions, TableError where there is nothing to make it from.
    """
    configured = config.table(table)
    if configured.layer != "bronze":
        raise ConfigError(f"{table} keeps no positions in Kafka: only bronze tables do")
    stream = configured.sources[0]
    found = tables.find(spark, config, configured, stream)
    state = None if found is None else tables.bronze_state(spark, found.path)
    if found is None or state is None:
        raise TableError(f"table {table} holds nothing yet that a checkpoint could be made from: run `headrace run {table}`")
    checkpoint = SparkCheckpoint(spark, tables.checkpoint_path(config, table))
    query, moved = checkpoint.rebuild(Owner(table, found.id, config.stream(stream).name), state.next)
    return Rebuilt(table, checkpoint.path, query, moved, state.next)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="jobs.rebuild_checkpoint", description="Make a bronze table's Spark checkpoint anew.")
    parser.add_argument("table", help="such as bronze.flights")
    parser.add_argument("--config", default=None, help="headrace.yml (default: HEADRACE_CONFIG, then headrace.yml here)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args(arguments)
    logs.configure(role="jobs", as_json=True if options.json else None)
    logging.getLogger("py4j").setLevel(logging.ERROR)
    from jobs.session import spark_session

    try:
        config = load_config(options.config)
        config.table(options.table)  # a wrong name is told before Spark is started
        spark = spark_session("headrace", short=True)
        try:
            made = rebuild(spark, config, options.table)
        finally:
            spark.stop()
    except HeadraceError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    if options.json:
        sys.stdout.write(json.dumps(asdict(made)) + "\n")
        return 0
    old = f"; the old one is {made.moved_to} now" if made.moved_to else ""
    places = sum(len(partitions) for partitions in made.positions.values())
    sys.stdout.write(f"{made.checkpoint} is new, from the positions of {places} partitions in {made.table}{old}.\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
