"""headrace up | down | status: the embedded stack from the command line.

Results go to standard output (a table, or with --json one JSON object), progress to standard error. ``status`` exits 0 when
the stack is up and 3 when it is not. Errors are raised as HeadraceError; cli/main.py prints them.
"""

from __future__ import annotations

import json
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from pipeline.local import stack

EXIT_DOWN = 3

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object, for machines.")]
Brokers = Annotated[int | None, typer.Option("--brokers", help="1 or 3 Kafka brokers; counts at the first start.")]


def register(app: typer.Typer) -> None:
    """Add the three commands to ``app``."""
    app.command()(up)
    app.command()(down)
    app.command()(status)


def up(brokers: Brokers = None, as_json: Json = False) -> None:
    """Start the embedded stack (Kafka and the schema registry), or repair it."""
    with _term_is_interrupt(), _progress() as say:
        result = stack.up(brokers=brokers, say=say)
    if as_json:
        _print_json(result.stack.as_json())
        return
    console = Console()
    console.print("The stack is already up." if result.already else f"Started {', '.join(result.started)}.", highlight=False)
    console.print(_table(result.stack))


def down(as_json: Json = False) -> None:
    """Stop the embedded stack; its data stays."""
    with _progress() as say:
        say("stopping the stack")
        result = stack.down(say=say)
    if as_json:
        _print_json({"stopped": list(result.stopped), "killed": list(result.killed)})
        return
    console = Console()
    if not result.stopped:
        console.print("The stack was not up.", highlight=False)
        return
    killed = f" ({', '.join(result.killed)} had to be killed; nothing acknowledged is lost)" if result.killed else ""
    console.print(f"Stopped {', '.join(result.stopped)}{killed}; the data stays for the next `headrace up`.", highlight=False)


def status(as_json: Json = False) -> None:
    """Say whether the embedded stack is up, and where. Exit code 3 when it is not."""
    found = stack.status()
    if found.stack is None:
        if as_json:
            _print_json({"kafka": None, "registry": None, "metrics": found.metrics, "problem": found.problem})
        Console(stderr=True, soft_wrap=True).print(found.problem, highlight=False, markup=False)
        raise typer.Exit(EXIT_DOWN)
    if as_json:
        _print_json(found.stack.as_json())
    else:
        Console().print(_table(found.stack))


def _table(running: stack.Stack) -> Table:
    pids = {one.name: one.pid for one in running.processes}
    table = Table(box=None, pad_edge=False)
    for column in ("", "address", "pid"):
        table.add_column(column, overflow="fold")
    kafka_pids = "\n".join(str(pid) for name, pid in pids.items() if name != "registry")
    table.add_row("kafka", running.bootstrap.replace(",", "\n"), kafka_pids)
    table.add_row("cluster id", running.cluster_id, "")
    table.add_row("registry", running.registry_url, str(pids.get("registry", "")))
    for name, url in running.metrics.items():
        table.add_row("metrics", url, name.partition("-")[2] or str(pids.get(name, "")))
    table.add_row("logs", str(running.home / "logs"), "")
    return table


def _print_json(content: object) -> None:
    typer.echo(json.dumps(content))


@contextmanager
def _progress() -> Iterator[Callable[[str], None]]:
    """A spinner with the latest step on a terminal; a line for each step elsewhere. Standard error in both cases."""
    console = Console(stderr=True, soft_wrap=True)
    if not console.is_terminal:
        yield lambda text: console.print(text, highlight=False, markup=False)
        return
    with console.status("looking at the stack") as spinner:
        yield spinner.update


@contextmanager
def _term_is_interrupt() -> Iterator[None]:
    """Within, SIGTERM raises KeyboardInterrupt as Ctrl-C does, so that a start that is ended midway cleans up behind itself."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
