"""What the commands of `headrace quality` share: their options, one Spark, and errors as one sentence."""

from __future__ import annotations

import argparse
import json
import logging
import sys
from collections.abc import Callable
from typing import Any

from pyspark.sql import SparkSession

from pipeline.config import Config, load_config
from pipeline.errors import HeadraceError

Work = Callable[[SparkSession, Config, argparse.Namespace], Any]


def parser(name: str, about: str) -> argparse.ArgumentParser:
    """A parser with the options that every command has."""
    made = argparse.ArgumentParser(prog=f"headrace quality {name}", description=about)
    made.add_argument("--config", default=None, help="headrace.yml (default: HEADRACE_CONFIG, then headrace.yml here)")
    made.add_argument("--json", action="store_true", help="print one JSON value")
    return made


def run(made: argparse.ArgumentParser, arguments: list[str] | None, work: Work, show: Callable[[Any], None]) -> int:
    """Do ``work`` in a Spark of its own and show what it gives; it has a JSON form. Returns the exit code."""
    options = made.parse_args(arguments)
    logging.getLogger("py4j").setLevel(logging.ERROR)
    from jobs.session import spark_session

    try:
        config = load_config(options.config)
        spark = spark_session("headrace-quality")
        try:
            found = work(spark, config, options)
        finally:
            spark.stop()
    except HeadraceError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    if options.json:
        sys.stdout.write(json.dumps(found, default=str) + "\n")
    else:
        show(found)
    return 0
