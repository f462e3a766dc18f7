"""docs/pictures/top.svg: what `headrace top` shows of a real run. `python docs/pictures/top.py` starts a stack of its own, puts
and consumes real flights for some seconds, splits a shard, and takes the picture."""

from __future__ import annotations

import os
import re
import tempfile
import threading
import time
from pathlib import Path

from rich.console import Console

from connectors.nycflights import FlightEvents
from pipeline import Consumer, Producer, load_config, reshard
from pipeline.cli.top import rendered
from pipeline.config import Config
from pipeline.local import stack
from pipeline.watch.looking import Looker
from pipeline.watch.view import view

HERE = Path(__file__).parent
FLIGHTS = 60_000
INTERVAL_S = 3.0


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="headrace-picture-") as folder:
        os.environ["HEADRACE_HOME"] = folder
        stack.up(folder)
        try:
            picture(load_config(HERE.parents[1] / "headrace.yml"))
        finally:
            stack.down(folder)


def picture(config: Config) -> None:
    stop = threading.Event()
    with Producer("flights", config=config) as producer:
        threads = [threading.Thread(target=put, args=(producer, stop)), threading.Thread(target=consume, args=(config, stop))]
        for thread in threads:
            thread.start()
        looker = Looker(config)
        try:
            time.sleep(INTERVAL_S)
            reshard.split("flights", "s0", config=config)
            time.sleep(INTERVAL_S)
            before = looker.look()
            time.sleep(INTERVAL_S)
            shown = rendered(view(before, looker.look()))
        finally:
            stop.set()
            for thread in threads:
                thread.join()
            looker.close()
    console = Console(width=128, record=True, file=Path(os.devnull).open("w"), force_terminal=True)  # noqa: SIM115
    console.print(shown)
    svg = console.export_svg(title="headrace top")
    # The reader's own fonts: a picture fetches nothing from the network.
    (HERE / "top.svg").write_text(re.sub(r"@font-face \{.*?\}\n", "", svg, flags=re.DOTALL), encoding="utf-8")


def put(producer: Producer, stop: threading.Event) -> None:
    for chunk in FlightEvents(FLIGHTS).read(0, chunk_records_max=500):
        for key, value in zip(chunk.keys, chunk.values, strict=True):
            producer.put(value, key)
        if stop.wait(0.02):
            return


def consume(config: Config, stop: threading.Event) -> None:
    with Consumer("flights", group="alerts", config=config) as consumer:
        while not stop.is_set():
            consumer.read(0.5)


if __name__ == "__main__":
    main()
