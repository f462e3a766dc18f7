"""headrace table …: what can be done with a table besides running it. Spark's side, by name like `headrace run`."""

from __future__ import annotations

from typing import Annotated

import typer

from pipeline.cli.jobs import run_module
from pipeline.cli.output import Json
from pipeline.cli.table_history import register_history

Name = Annotated[str, typer.Argument(help="A table of headrace.yml, such as bronze.flights.")]


def register(app: typer.Typer) -> None:
    """Add the group `table` to ``app``."""
    group = typer.Typer(no_args_is_help=True, help="Tables: their versions, their readers, their Spark checkpoints.")
    register_history(group)
    group.command("rebuild-checkpoint")(rebuild_checkpoint)
    app.add_typer(group, name="table")


def rebuild_checkpoint(table: Name, as_json: Json = False) -> None:
    """Make a bronze table's Spark checkpoint anew from the positions in its newest commit, with the table's query stopped. An
    old checkpoint is moved aside. No row is lost or repeated by it."""
    run_module("jobs.rebuild_checkpoint", [table, *(["--json"] if as_json else [])])
