"""headrace maintain, and headrace table history|diff|restore|readers|register|forget: Spark's side, started as modules."""

from __future__ import annotations

from typing import Annotated

import typer

from pipeline.cli.jobs import run_module
from pipeline.cli.output import Json

Name = Annotated[str, typer.Argument(help="A table of headrace.yml, such as silver.flights.")]
Reader = Annotated[str, typer.Argument(help="The reader's name.")]
_MODULE = "jobs.table_versions"


def register_maintain(app: typer.Typer) -> None:
    """Add `maintain` to ``app``."""
    app.command()(maintain)


def register_history(group: typer.Typer) -> None:
    """Add the commands to the group `table`."""
    for command in (history, diff, restore, readers, register, forget):
        group.command()(command)


def maintain(
    tables: Annotated[list[str] | None, typer.Argument(help="Tables of headrace.yml; all of them by default.")] = None,
    as_json: Json = False,
) -> None:
    """Compact tables, delete what is too old, remove files that nobody needs any more. Safe beside running jobs. Exit code 1
    where VACUUM was refused."""
    chosen = [part for table in tables or [] for part in ("--table", table)]
    run_module("jobs.maintain", [*chosen, *_json(as_json)])


def history(
    table: Name,
    maximum: Annotated[int, typer.Option("--max", min=1, help="The newest so many.")] = 20,
    as_json: Json = False,
) -> None:
    """The versions of a table: when, what, how many rows and files, and who."""
    run_module(_MODULE, ["history", table, "--max", str(maximum), *_json(as_json)])


def diff(
    table: Name,
    before: Annotated[str, typer.Argument(help="A version, or a time such as 2026-01-31T12:00 (UTC).")],
    after: Annotated[str | None, typer.Argument(help="The same; default: now.")] = None,
    sample: Annotated[int, typer.Option(min=1, max=1_000, help="Rows of each kind to show.")] = 5,
    as_json: Json = False,
) -> None:
    """Rows added, removed and changed between two versions of a table."""
    run_module(_MODULE, ["diff", table, before, *([after] if after else []), "--sample", str(sample), *_json(as_json)])


def restore(
    table: Name,
    to: Annotated[str, typer.Argument(help="A version, or a time such as 2026-01-31T12:00 (UTC).")],
    as_json: Json = False,
) -> None:
    """Bring a table back to an older version, with its jobs stopped. The next run goes on from there, exactly once."""
    run_module(_MODULE, ["restore", table, to, *_json(as_json)])


def readers(table: Name, as_json: Json = False) -> None:
    """Who reads a table by its versions, and where each stands: VACUUM waits for them."""
    run_module(_MODULE, ["readers", table, *_json(as_json)])


def register(
    table: Name,
    reader: Reader,
    version: Annotated[int | None, typer.Option(min=0, help="The last version that it has read; default: the newest.")] = None,
    as_json: Json = False,
) -> None:
    """Note that a reader of your own has read a table up to a version; again each time it got on."""
    chosen = ["--version", str(version)] if version is not None else []
    run_module(_MODULE, ["register", table, reader, *chosen, *_json(as_json)])


def forget(table: Name, reader: Reader, as_json: Json = False) -> None:
    """A registered reader reads no more."""
    run_module(_MODULE, ["forget", table, reader, *_json(as_json)])


def _json(wanted: bool) -> list[str]:
    return ["--json"] if wanted else []
