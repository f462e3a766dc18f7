"""Rows that a silver table did not take: looked at, and redriven.

    headrace quality held TABLE [--where SQL] [--max N] [--json]
    headrace quality redrive TABLE [--where SQL] [--dry-run] [--json]

A redrive puts the rows that failed a rule (``<table>__quarantine``) through the rules as they are now, and those that failed at a
step (``<table>__rejected``) through steps and rules; what passes is merged with its first order token, so it never overwrites a
newer row. A row is marked after it was merged: broken off in between, it is merged again, which changes nothing.
"""

from __future__ import annotations

import argparse
from dataclasses import asdict, dataclass
from typing import Any

from pyspark import StorageLevel
from pyspark.errors import AnalysisException, ParseException
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from jobs.conflicts import again_on_conflict
from jobs.expressions import check_expression, reason
from jobs.quality import command
from jobs.rejects import HELD, QUARANTINE_SUFFIX, REJECTED_SUFFIX, Companion
from jobs.silver import SilverJob
from jobs.tables import DELETED, META
from pipeline.cli.output import plain, print_table, say
from pipeline.config import Config
from pipeline.errors import ConfigError

SUFFIXES = (QUARANTINE_SUFFIX, REJECTED_SUFFIX)


@dataclass(frozen=True, slots=True)
class Redriven:
    """``matched`` rows waited; ``redriven`` of them are in the table now; the others still fail and wait on."""

    matched: int
    redriven: int


def held(spark: SparkSession, config: Config, table: str, where: str | None, maximum: int) -> list[dict[str, Any]]:
    """The rows that wait, newest first, at most ``maximum`` of each kind. Raises ConfigError where ``where`` does not fit."""
    out: list[dict[str, Any]] = []
    for companion in _companions(spark, config, table):
        waiting = _matching(companion, where)
        if waiting is None:
            continue
        for row in waiting.orderBy(F.col(f"{HELD}.at").desc()).limit(maximum).collect():
            data = row.asDict(recursive=True)
            meta, why = data.pop(META), data.pop(HELD)
            data.pop(DELETED)
            about = {"table": companion.name, "reasons": why["reasons"], "at": why["at"], "micro_batch": why["micro_batch"]}
            place = {"partition": meta["partition"], **meta["order"]}
            out.append(plain(about | {"key": meta["key"], "place": place, "row": data}))
    return out


def redrive(spark: SparkSession, config: Config, table: str, where: str | None, *, dry_run: bool = False) -> Redriven:
    """Put rows that wait into the table, each once. With ``dry_run``, only count those that would go.

    Beside a running job of the table, whoever commits second does so again.
    """
    spark = spark.newSession()  # a merge leaves its metadata in its session's settings
    companions = _companions(spark, config, table)
    job = SilverJob(spark, config, table)
    matched = redriven = 0
    try:
        for companion in companions:
            waiting = _matching(companion, where)
            if waiting is None:
                continue
            waiting = waiting.persist(StorageLevel.MEMORY_AND_DISK)
            passing = job.intake.again(waiting.drop(HELD), transform=companion.suffix == REJECTED_SUFFIX)
            passing = passing.persist(StorageLevel.MEMORY_AND_DISK)
            try:
                matched += waiting.count()
                count = passing.select(META).distinct().count()
                if count and not dry_run:
                    _take(job, companion, passing)
                redriven += count
            finally:
                passing.unpersist()
                waiting.unpersist()
    finally:
        job.close()
    return Redriven(matched, redriven)


def _take(job: SilverJob, companion: Companion, passing: DataFrame) -> None:
    job.redrive(passing)
    again_on_conflict(lambda: companion.mark_redriven(passing.select(META).distinct()), companion.name)


def _companions(spark: SparkSession, config: Config, table: str) -> list[Companion]:
    if config.table(table).layer != "silver":
        raise ConfigError(f"{table}: only silver tables hold rows back; see `headrace dlq` for records that could not be read")
    return [Companion(spark, config, table, suffix) for suffix in SUFFIXES]


def _matching(companion: Companion, where: str | None) -> DataFrame | None:
    waiting = companion.waiting()
    if waiting is None or where is None:
        return waiting
    check_expression(companion.spark, where, "--where")
    try:
        return waiting.where(where)
    except (AnalysisException, ParseException) as error:
        raise ConfigError(f"--where {where!r} does not fit {companion.name}: {reason(error)}") from error


def _show_held(found: list[dict[str, Any]]) -> None:
    columns = ("table", "reasons", "key", "at", "row")
    print_table(
        "Rows held back", columns, [(r["table"], "; ".join(r["reasons"]), r["key"], r["at"], str(r["row"])[:200]) for r in found]
    )


def _show_redriven(found: dict[str, Any]) -> None:
    verb = "would be" if found["dry_run"] else "were"
    left = found["matched"] - found["redriven"]
    say(f"{found['matched']:,} rows match; {found['redriven']:,} {verb} put into {found['table']}; {left:,} still fail.")


def main(arguments: list[str] | None = None) -> int:
    made = command.parser("redrive", "Put rows that were held back into their table.")
    made.add_argument("table")
    made.add_argument("--where", default=None)
    made.add_argument("--list", action="store_true", help="show them instead")
    made.add_argument("--max", type=int, default=100)
    made.add_argument("--dry-run", action="store_true")
    listing = "--list" in (arguments or [])

    def work(spark: SparkSession, config: Config, options: argparse.Namespace) -> Any:
        if options.list:
            return held(spark, config, options.table, options.where, options.max)
        done = redrive(spark, config, options.table, options.where, dry_run=options.dry_run)
        return asdict(done) | {"table": options.table, "dry_run": options.dry_run}

    return command.run(made, arguments, work, _show_held if listing else _show_redriven)


if __name__ == "__main__":
    import sys

    raise SystemExit(main(sys.argv[1:]))
