"""`headrace table history|diff|restore`, and who reads a table by its versions: `readers|register|forget`.

    python -m jobs.table_versions history silver.flights [--max 20]
    python -m jobs.table_versions diff silver.flights 12 [15] [--sample 5]
    python -m jobs.table_versions restore silver.flights 12|2026-01-31T12:00
    python -m jobs.table_versions readers|register|forget bronze.flights [NAME] [--version 12]
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from pyspark.sql import SparkSession
from rich.console import Console
from rich.table import Table

from jobs.maintenance import readers
from jobs.tables import version as newest_version
from jobs.timetravel.diff import diff
from jobs.timetravel.history import history, resolve
from jobs.timetravel.restore import restore
from pipeline import logs
from pipeline.config import Config, load_config
from pipeline.errors import ConfigError, HeadraceError


def run(spark: SparkSession, config: Config, options: argparse.Namespace) -> Any:
    """What the command prints, as JSON has it. Raises HeadraceErrors."""
    table = options.table
    path = readers.identity_of(spark, config, table).path
    if options.command == "history":
        return [asdict(one) for one in history(spark, path, options.max)]
    if options.command == "diff":
        before = resolve(spark, path, table, options.before)
        after = newest_version(spark, path) if options.after is None else resolve(spark, path, table, options.after)
        return asdict(diff(spark, config, table, before, after, options.sample))
    if options.command == "restore":
        return asdict(restore(spark, config, table, options.to))
    if options.command == "register":
        version = newest_version(spark, path) if options.version is None else options.version
        return asdict(readers.register(spark, config, table, options.name, version))
    if options.command == "forget":
        readers.forget(spark, config, table, options.name)
        return {"forgotten": options.name}
    return [asdict(one) for one in readers.readers_of(spark, config, table)]


def show(command: str, found: Any) -> None:
    """The same for people."""
    console = Console()
    if command == "history":
        _table(console, ("version", "at", "operation", "by", "rows", "files"), [_version(one) for one in found])
    elif command == "readers":
        _table(console, ("reader", "version", "kind", "noted"), [[str(value or "") for value in one.values()] for one in found])
    elif command == "diff":
        _difference(console, found)
    elif command == "restore":
        console.print(f"{found['table']} has the rows of version {found['version']} again, as version {found['now']}.")
        for checkpoint in found["checkpoints"]:
            console.print(f"Taken away: the Spark checkpoint, now {checkpoint}", soft_wrap=True)
        console.print("The next `headrace run` reads on from there.")
    elif command == "register":
        console.print(f"{found['name']} stands at version {found['version']}: VACUUM keeps what it has yet to read.")
    else:
        console.print(f"{found['forgotten']} is forgotten.")


def _version(one: dict[str, Any]) -> Sequence[str]:
    rows = " ".join(
        f"{sign}{one[f'rows_{kind}']:,}"
        for sign, kind in (("+", "inserted"), ("~", "updated"), ("−", "deleted"))
        if one[f"rows_{kind}"] is not None
    )
    files = f"+{one['files_added']:,} −{one['files_removed']:,}"
    return str(one["version"]), one["at"], one["operation"], one["by"], rows, files


def _difference(console: Console, found: dict[str, Any]) -> None:
    by = f"by {', '.join(found['keys'])}" if found["keys"] else "row by row"
    console.print(f"{found['table']}, version {found['before']} to {found['after']}, {by}:", highlight=False)
    for kind in ("added", "removed", "changed"):
        console.print(f"  {found[kind]:,} {kind}", highlight=False)
        for row in found["samples"].get(kind, []):
            text = json.dumps(row, default=str, ensure_ascii=False)
            console.print(f"    {text}", highlight=False, markup=False, soft_wrap=True)


def _table(console: Console, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    table = Table()
    for column in columns:
        table.add_column(column, justify="right" if column in ("version", "rows", "files") else "left", overflow="fold")
    for row in rows:
        table.add_row(*row)
    console.print(table)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="headrace table", description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("history", "diff", "restore", "readers", "register", "forget"):
        one = commands.add_parser(name)
        one.add_argument("table", help="such as silver.flights")
        one.add_argument("--config", default=None, help="headrace.yml (default: HEADRACE_CONFIG, then headrace.yml here)")
        one.add_argument("--json", action="store_true", help="print one JSON value")
        if name == "history":
            one.add_argument("--max", type=int, default=20, help="the newest so many")
        elif name == "diff":
            one.add_argument("before", help="a version or a time")
            one.add_argument("after", nargs="?", default=None, help="a version or a time; default: now")
            one.add_argument("--sample", type=int, default=5, help="rows of each kind to show")
        elif name == "restore":
            one.add_argument("to", help="a version or a time")
        elif name in ("register", "forget"):
            one.add_argument("name", help="the reader's name")
        if name == "register":
            one.add_argument("--version", type=int, default=None, help="the last one that it has read; default: the newest")
    return parser


def main(arguments: list[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    logs.configure(role="jobs", as_json=True if options.json else None)
    logging.getLogger("py4j").setLevel(logging.ERROR)
    from jobs.session import spark_session

    try:
        config = load_config(options.config)
        config.table(options.table)  # a wrong name is told before Spark is started
        if options.command in ("history", "diff") and min(getattr(options, "max", 1), getattr(options, "sample", 1)) < 1:
            raise ConfigError("expected 1 or more")
        spark = spark_session("headrace-table", short=True)
        try:
            found = run(spark, config, options)
        finally:
            spark.stop()
    except HeadraceError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    if options.json:
        sys.stdout.write(json.dumps(found, default=str, ensure_ascii=False) + "\n")
    else:
        show(options.command, found)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
