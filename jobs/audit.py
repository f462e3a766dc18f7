"""Audit: prove from the data itself that nothing was lost, repeated or mixed up on the way from a stream to its tables.

    headrace audit flights | bronze.flights | silver.flights [--json]

Exit code 1 with the first offending offsets where something does not hold. It reads; it changes nothing.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
from collections.abc import Sequence

from pyspark.sql import SparkSession
from rich.console import Console
from rich.table import Table

from jobs.audits.bronze import audit_bronze, audit_log
from jobs.audits.finding import Audit
from jobs.audits.silver import audit_silver
from jobs.storage import check_reachable
from pipeline.config import Config, load_config
from pipeline.errors import ConfigError, HeadraceError


def audit(spark: SparkSession, config: Config, name: str) -> list[Audit]:
    """Audit a table, or a stream with every bronze and silver table made from it.

    Raises ConfigError for a name that is neither, and for gold, which is checked by running it anew (``mode: refresh``).
    """
    if name in config.streams:
        bronze = [table.name for table in config.tables.values() if table.layer == "bronze" and table.sources == [name]]
        silver = [table.name for table in config.tables.values() if table.merge and table.sources[0] in bronze]
        return [one for table in (*bronze, *silver) for one in audit(spark, config, table)] or [audit_log(spark, config, name)]
    if name not in config.tables:
        known = ", ".join([*sorted(config.streams), *sorted(config.tables)]) or "none"
        raise ConfigError(f"{config.path} has no stream or table {name!r}; there are: {known}")
    layer = config.table(name).layer
    if layer == "gold":
        raise ConfigError(f"{name} is computed anew from its sources: audit those ({', '.join(config.table(name).sources)})")
    if config.table(name).ordered is not None:
        raise ConfigError(f"{name} is made by a function, its order checked at each record: see {config.table(name).sources[0]}")
    return [audit_bronze(spark, config, name) if layer == "bronze" else audit_silver(spark, config, name)]


def show(audits: Sequence[Audit]) -> None:
    """A table of what was looked at, and what was found below it."""
    table = Table("audit", "against", "looked at", "found")
    for one in audits:
        looked_at = "\n".join(f"{count:,} {what}" for what, count in one.looked_at.items()) or "nothing: it is empty"
        table.add_row(one.name, one.against, looked_at, "[green]ok" if one.ok else f"[red]{len(one.findings)} problems")
    console = Console()
    console.print(table)
    for one in audits:
        for finding in one.findings:
            console.print(f"[red]{one.name}:[/] {finding.count:,} {finding.problem}", highlight=False, soft_wrap=True)
            for example in finding.examples:
                console.print(f"    {example}", highlight=False, soft_wrap=True)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="headrace audit", description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("name", help="a stream or a table of headrace.yml")
    parser.add_argument("--config", default=None, help="headrace.yml (default: HEADRACE_CONFIG, then headrace.yml here)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args(arguments)
    logging.getLogger("py4j").setLevel(logging.ERROR)
    from jobs.session import spark_session

    try:
        config = load_config(options.config)
        spark = spark_session("headrace-audit", warehouse=config.warehouse)
        try:
            check_reachable(spark, config.warehouse)
            audits = audit(spark, config, options.name)
        finally:
            spark.stop()
    except HeadraceError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    if options.json:
        sys.stdout.write(json.dumps({"ok": all(a.ok for a in audits), "audits": [a.to_json() for a in audits]}) + "\n")
    else:
        show(audits)
    return 0 if all(one.ok for one in audits) else 1


if __name__ == "__main__":
    raise SystemExit(main())
