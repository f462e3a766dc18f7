"""headrace exporter (and top and doctor): seeing what runs."""

from __future__ import annotations

import signal
import threading
from typing import Annotated

import typer

from pipeline.cli.output import Json, print_json, say
from pipeline.config import load_config
from pipeline.watch.exporter import Exporter


def register(app: typer.Typer) -> None:
    """Add the commands to ``app``."""
    app.command()(exporter)


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
