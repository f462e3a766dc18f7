"""What the demo shows: progress on standard error while it runs, the result on standard output at its end."""

from __future__ import annotations

import dataclasses
import json
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

from jobs.demo.proof import Difference, Found, delays_per_origin, statuses


class Display:
    """Steps as lines, counts as bars; on a terminal the bars move, elsewhere only the lines are written. Thread-safe."""

    def __init__(self) -> None:
        self._console = Console(stderr=True)
        columns = (TextColumn("{task.description:<28}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        self._bars = Progress(*columns, console=self._console, disable=not self._console.is_terminal)
        self._tasks: dict[str, TaskID] = {}
        self._completed: dict[str, int] = {}
        self._started = time.monotonic()

    def __enter__(self) -> Display:
        self._bars.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._bars.stop()

    def say(self, text: str) -> None:
        """A line with the time since the start."""
        self._console.print(f"[dim]{time.monotonic() - self._started:6.1f} s[/dim]  {text}", highlight=False, soft_wrap=True)

    def bar(self, name: str, total: int) -> None:
        """Show a bar, from 0 on."""
        self._tasks[name] = self._bars.add_task(name, total=total)

    def advance_to(self, name: str, completed: int) -> None:
        """Move a bar; never back, as what is done again after a crash was done already."""
        if name in self._tasks and completed > self._completed.get(name, 0):
            self._completed[name] = completed
            self._bars.update(self._tasks[name], completed=completed)

    @contextmanager
    def step(self, text: str) -> Iterator[None]:
        """Say what begins, and show that it goes on until it ends."""
        self.say(text)
        task = self._bars.add_task(text.split(":")[0][:28], total=None)
        try:
            yield
        finally:
            self._bars.remove_task(task)


def summary(found: Found, differences: Sequence[Difference], seconds: float) -> dict[str, Any]:
    """What ``--json`` prints."""
    return {
        "events_acknowledged": found.acknowledged["flights"],
        "repeats_dropped": sum(found.repeats_dropped.values()),
        "tables": dict(found.tables),
        "status": statuses(found.flights),
        "delays": delays_per_origin(found.flights),
        "proof": [dataclasses.asdict(one) for one in differences] or "ok",
        "seconds": round(seconds, 1),
    }


def show_json(result: Mapping[str, Any]) -> None:
    sys.stdout.write(json.dumps(result) + "\n")
    sys.stdout.flush()


def show_tables(result: Mapping[str, Any]) -> None:
    """The summary for people: what is in the tables, and whether it is proven."""
    console = Console()
    table = Table("figure", "value", title="Headrace demo", title_justify="left")
    table.columns[1].justify = "right"
    _rows(table, {"flight events acknowledged": result["events_acknowledged"], "repeats dropped": result["repeats_dropped"]})
    _rows(table, {f"rows in {name}": count for name, count in result["tables"].items()})
    _rows(table, {f"flights {status.lower()}": count for status, count in sorted(result["status"].items())})
    for origin, delays in sorted(result["delays"].items()):
        _rows(table, {f"{origin}: departures": delays["count"], f"{origin}: minutes of departure delay": delays["sum"]})
    _rows(table, {"seconds": result["seconds"]})
    console.print(table)
    if result["proof"] == "ok":
        console.print(
            "[green]Proven:[/green] every figure equals the one recomputed from the source data; nothing lost, nothing twice."
        )
        return
    differs = Table("what differs", "expected", "found", title="NOT PROVEN", title_justify="left", title_style="bold red")
    for one in result["proof"]:
        differs.add_row(one["name"], _text(one["expected"]), _text(one["found"]))
    console.print(differs)


def _rows(table: Table, figures: Mapping[str, Any]) -> None:
    for number, (name, value) in enumerate(figures.items(), 1):
        table.add_row(name, _text(value), end_section=number == len(figures))


def _text(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {_text(one)}" for name, one in value.items())
    return f"{value:,}" if isinstance(value, int | float) else str(value)
