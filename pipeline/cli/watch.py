"""headrace exporter, top and doctor: seeing what runs."""

from __future__ import annotations

import signal
import threading
from dataclasses import asdict
from typing import Annotated

import typer
from rich.console import Console

from pipeline.cli.output import Json, print_json, say
from pipeline.cli.top import top
from pipeline.config import load_config
from pipeline.watch.exporter import Exporter
from pipeline.watch.health import FAILED, OK, WARNING, checks


def register(app: typer.Typer) -> None:
    """Add the commands to ``app``."""
    app.command()(exporter)
    app.command()(top)
    app.command()(doctor)


def exporter(
    interval: Annotated[float, typer.Option(min=0.5, max=3600, help="Seconds between surveys.")] = 5.0, as_json: Json = False
) -> None:
    """Survey streams, lags and dead letters for Prometheus, until it is stopped."""
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    running = Exporter(load_config())
    if as_json:
        print_json({"url": running.url})
    else:
        say(f"Metrics of the cluster at {running.url}" if running.url else "metrics are off in headrace.yml: nothing to serve")
    running.run(stop, interval)


def doctor(as_json: Json = False) -> None:
    """Check versions, Java, broker, registry, streams, tables and endpoints, and say what to do. Exit code 1 after a failure."""
    found = list(checks(load_config()))
    failed = any(one.state == FAILED for one in found)
    if as_json:
        print_json({"ok": not failed, "checks": [asdict(one) for one in found]})
    else:
        console = Console(soft_wrap=True)
        for one in found:
            mark = {OK: "[green]✓[/]", WARNING: "[yellow]![/]", FAILED: "[red]✗[/]"}[one.state]
            console.print(f"{mark} [bold]{one.what}[/]", end="  ")
            console.print(one.found, markup=False, highlight=False)
            if one.do:
                console.print(f"    → {one.do}", markup=False, highlight=False)
    if failed:
        raise typer.Exit(1)
