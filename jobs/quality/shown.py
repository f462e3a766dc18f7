"""headrace quality results [TABLE]: what the rules said about the newest micro-batches."""

from __future__ import annotations

import argparse
from typing import Any

from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from jobs.quality import command, results
from pipeline.cli.output import plain, print_table
from pipeline.config import Config


def newest(spark: SparkSession, config: Config, table: str | None, maximum: int) -> list[dict[str, Any]]:
    """The newest results, newest first."""
    found = results.read(spark, config)
    if found is None:
        return []
    if table is not None:
        found = found.where(F.col("table") == config.table(table).name)
    rows = found.orderBy(F.col("at").desc(), "table", "rule").limit(maximum).collect()
    return [plain(row.asDict()) for row in rows]


def _show(found: list[dict[str, Any]]) -> None:
    columns = ("table", "rule", "on_fail", "micro_batch", "rows_checked", "rows_failed", "observed", "passed", "at")
    print_table("Quality results", columns, [[row[name] for name in columns] for row in found])


def main(arguments: list[str] | None = None) -> int:
    made = command.parser("results", "What the rules said about the newest micro-batches.")
    made.add_argument("table", nargs="?")
    made.add_argument("--max", type=int, default=100)

    def work(spark: SparkSession, config: Config, options: argparse.Namespace) -> Any:
        return newest(spark, config, options.table, options.max)

    return command.run(made, arguments, work, _show)


if __name__ == "__main__":
    import sys

    raise SystemExit(main(sys.argv[1:]))
