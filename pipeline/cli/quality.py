"""headrace quality …: rules of tables. Spark's side, by name like `headrace run`."""

from __future__ import annotations

from typing import Annotated

import typer

from pipeline.cli.jobs import run_module
from pipeline.cli.output import Json

Name = Annotated[str, typer.Argument(help="A table of headrace.yml, such as silver.flights.")]
WhereOption = Annotated[
    str | None, typer.Option("--where", help="An SQL condition, such as: array_contains(_held.reasons, 'dep_delay').")
]
Maximum = Annotated[int, typer.Option("--max", min=1, help="At most so many.")]


def register(app: typer.Typer) -> None:
    """Add the group `quality` to ``app``."""
    group = typer.Typer(no_args_is_help=True, help="Quality rules (expect:): results, rows held back, profiles, suggestions.")
    for command in (results, held, redrive, profile, suggest):
        group.command()(command)
    app.add_typer(group, name="quality")


def results(
    table: Annotated[str | None, typer.Argument(help="A table; default: all.")] = None,
    maximum: Maximum = 100,
    as_json: Json = False,
) -> None:
    """What the rules said about the newest micro-batches."""
    run_module("jobs.quality.shown", [*([table] if table else []), "--max", str(maximum), *_json(as_json)])


def held(table: Name, where: WhereOption = None, maximum: Maximum = 100, as_json: Json = False) -> None:
    """Rows that failed a rule or a step and wait, with the reasons."""
    run_module("jobs.quality.held", [table, "--list", *_where(where), "--max", str(maximum), *_json(as_json)])


def redrive(
    table: Name,
    where: WhereOption = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Count, and do nothing.")] = False,
    as_json: Json = False,
) -> None:
    """Put rows that wait through steps and rules as they are now, and those that pass into their table, each once. They never
    overwrite newer rows."""
    run_module("jobs.quality.held", [table, *_where(where), *(["--dry-run"] if dry_run else []), *_json(as_json)])


def profile(
    table: Name,
    svg: Annotated[str | None, typer.Option("--svg", help="Draw the histograms into this file too.")] = None,
    as_json: Json = False,
) -> None:
    """What is in a table: counts, nulls, distinct, minimum, maximum, quantiles, top values."""
    run_module("jobs.quality.profile", [table, *(["--svg", svg] if svg else []), *_json(as_json)])


def suggest(table: Name, as_json: Json = False) -> None:
    """Rules that hold for the table today, as YAML for headrace.yml."""
    run_module("jobs.quality.suggest", [table, *_json(as_json)])


def _where(where: str | None) -> list[str]:
    return ["--where", where] if where is not None else []


def _json(as_json: bool) -> list[str]:
    return ["--json"] if as_json else []
