"""headrace run, demo and audit: Spark's side, started as modules of their own, since pipeline/ knows no Spark."""

from __future__ import annotations

import runpy
import sys
from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    """Add the commands to ``app``."""
    app.command()(run)
    app.command()(demo)
    app.command()(audit)


def run(
    tables: Annotated[list[str] | None, typer.Argument(help="Tables of headrace.yml; all of them by default.")] = None,
    mode: Annotated[str, typer.Option(help="continuous, available-now, or an interval such as `10 seconds`.")] = "continuous",
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object at the end.")] = False,
) -> None:
    """Keep the tables of headrace.yml up to date, in one local Spark."""
    run_module("jobs.run", [*(tables or []), "--mode", mode, *(["--json"] if as_json else [])])


def demo(
    rows: Annotated[int | None, typer.Option(min=1, help="Only the first N flights.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print only the figures, as JSON.")] = False,
) -> None:
    """The main job on real data, start to proof: a year of flights and weather through Kafka and Spark into Delta tables."""
    run_module("jobs.demo", [*(["--rows", str(rows)] if rows is not None else []), *(["--json"] if as_json else [])])


def audit(
    name: Annotated[str, typer.Argument(help="A stream or a table of headrace.yml.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Prove from the data itself that nothing was lost, repeated or mixed up; exit code 1 and where, if something was."""
    run_module("jobs.audit", [name, *(["--json"] if as_json else [])])


def run_module(name: str, arguments: list[str]) -> None:
    """Run a module as `python -m` would, in this process. By name: imports point from jobs to pipeline, never back."""
    sys.argv = [name, *arguments]
    runpy.run_module(name, run_name="__main__", alter_sys=True)
