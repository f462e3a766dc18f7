"""docs/pictures/charts.svg: a real run in Prometheus' own words. `python docs/pictures/charts.py` starts a stack and a real
Prometheus (with docker/'s settings, scraping every second), puts and consumes flights, splits a shard and kills the consumer
for some seconds, asks Prometheus for the figures, and draws them."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from xml.sax.saxutils import escape

import yaml

from connectors.nycflights import FlightEvents
from pipeline import Producer, load_config, reshard
from pipeline.config import Config
from pipeline.local import stack
from pipeline.watch.exporter import Exporter

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
WARM_S, STEP_S, AWAY_S, REST_S = 20, 12, 8, 14
WIDTH, HEIGHT, LEFT, TOP, BELOW = 860, 190, 64, 30, 26
COLOURS = ("#2f6fb5", "#d1662c", "#3c8f4b", "#8a5bb0", "#b5972f", "#4b9aa8", "#b04b6a", "#6b6b6b")
CONSUMER = """
import sys
from pipeline import Consumer, load_config
with Consumer("flights", group="alerts", config=load_config(sys.argv[1])) as consumer:
    for record in consumer:
        pass
"""


@dataclass(frozen=True)
class Chart:
    """``expression`` as in the dashboards; each series is called by its label ``by``, or ``by`` itself is its name."""

    title: str
    unit: str
    queries: tuple[tuple[str, str], ...]


CHARTS = (
    Chart("Records acknowledged, by shard", "records/s", (("rate(headrace_producer_shard_records_total[4s])", "shard"),)),
    Chart("Lag of the group, by shard", "messages", (("headrace_group_lag_messages", "shard"),)),
    Chart(
        "Barrier time and put to acknowledgement",
        "ms",
        (
            ("1000 * histogram_quantile(0.5, sum by (le) (rate(headrace_producer_barrier_seconds_bucket[4s])))", "barrier p50"),
            ("1000 * histogram_quantile(0.99, sum by (le) (rate(headrace_producer_barrier_seconds_bucket[4s])))", "barrier p99"),
            (
                "1000 * histogram_quantile(0.5, sum by (le) (rate(headrace_producer_aggregate_age_seconds_bucket[4s])))",
                "first record to acknowledgement p50",
            ),
        ),
    ),
)


@dataclass
class Run:
    """What happened, by Unix time."""

    started: float = 0.0
    ended: float = 0.0
    events: list[tuple[float, str]] = field(default_factory=list)

    def note(self, what: str) -> None:
        self.events.append((time.time(), what))


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="headrace-charts-") as folder:
        home = Path(folder) / "home"
        os.environ["HEADRACE_HOME"] = str(home)
        stack.up(home)
        try:
            with prometheus(Path(folder), home) as url:
                run = load(load_config(ROOT / "headrace.yml"))
                drawn = [draw(chart, number, run, series(url, chart, run)) for number, chart in enumerate(CHARTS)]
        finally:
            stack.down(home)
    height = HEIGHT * len(CHARTS)
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" font-family="sans-serif" font-size="11">'
    background = f'<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>'
    (HERE / "charts.svg").write_text("\n".join([head, background, *drawn, "</svg>"]) + "\n", encoding="utf-8")


def load(config: Config) -> Run:
    """Flights go in and come out while a shard is split and the consumer is killed and started again."""
    run, stop = Run(), threading.Event()
    with Producer("flights", config=config) as producer:
        exporter = Exporter(config)
        threads = [
            threading.Thread(target=put, args=(producer, stop)),
            threading.Thread(target=exporter.run, args=(stop, 1.0)),
        ]
        for thread in threads:
            thread.start()
        consumer = consume(config)
        try:
            time.sleep(WARM_S)
            run.started = time.time() - STEP_S / 2
            reshard.split("flights", "s0", config=config)
            run.note("s0 is split")
            time.sleep(STEP_S)
            consumer.kill()
            consumer.wait()
            run.note("consumer killed")
            time.sleep(AWAY_S)
            consumer = consume(config)
            run.note("and started again")
            time.sleep(REST_S)
            run.ended = time.time() - 1
        finally:
            stop.set()
            consumer.kill()
            consumer.wait()
            for thread in threads:
                thread.join()
    return run


def put(producer: Producer, stop: threading.Event) -> None:
    while not stop.is_set():
        for chunk in FlightEvents(50_000).read(0, chunk_records_max=200):
            for key, value in zip(chunk.keys, chunk.values, strict=True):
                producer.put(value, key)
            if stop.wait(0.05):
                return


def consume(config: Config) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", CONSUMER, str(config.path)])


@contextmanager
def prometheus(folder: Path, home: Path) -> Iterator[str]:
    """Its URL; with docker/'s configuration, but for where targets are found and how often."""
    settings = yaml.safe_load((ROOT / "docker" / "prometheus" / "prometheus.yml").read_text())
    ours = next(one for one in settings["scrape_configs"] if one["job_name"] == "headrace")
    ours["file_sd_configs"] = [{"files": [str(home / "metrics" / "*.json")], "refresh_interval": "1s"}]
    (folder / "prometheus.yml").write_text(
        yaml.safe_dump({"global": {"scrape_interval": "1s", "evaluation_interval": "1s"}, "scrape_configs": [ours]})
    )
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = "{}:{}".format(*free.getsockname())
    arguments = [
        f"--config.file={folder}/prometheus.yml",
        f"--storage.tsdb.path={folder}/tsdb",
        f"--web.listen-address={address}",
    ]
    server = subprocess.Popen(["prometheus", *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield f"http://{address}"
    finally:
        server.terminate()
        server.wait(20)


def series(url: str, chart: Chart, run: Run) -> dict[str, list[tuple[float, float]]]:
    """(time, value) by name, a point a second; NaN is left out."""
    found: dict[str, list[tuple[float, float]]] = {}
    for expression, by in chart.queries:
        query = {"query": expression, "start": f"{run.started:.3f}", "end": f"{run.ended:.3f}", "step": "1"}
        with urllib.request.urlopen(f"{url}/api/v1/query_range?{urllib.parse.urlencode(query)}", timeout=20) as answer:
            results = json.load(answer)["data"]["result"]
        for one in results:
            points = [(float(at), float(value)) for at, value in one["values"] if value not in ("NaN", "+Inf")]
            found[one["metric"].get(by, by)] = points
    assert any(found.values()), f"Prometheus has nothing for {chart.title}"
    return dict(sorted(found.items()))


def draw(chart: Chart, number: int, run: Run, lines: dict[str, list[tuple[float, float]]]) -> str:
    bottom = HEIGHT - BELOW
    most = nice(max(value for points in lines.values() for _, value in points))

    def x(at: float) -> float:
        return LEFT + (at - run.started) / (run.ended - run.started) * (WIDTH - LEFT - 12)

    def y(value: float) -> float:
        return bottom - value / most * (bottom - TOP)

    parts = [text(LEFT, 18, f"{chart.title} ({chart.unit})", weight="bold")]
    for step in range(5):
        value = most * step / 4
        parts.append(f'<path d="M{LEFT} {y(value):.1f}H{WIDTH - 12}" stroke="#e3e3e3"/>')
        parts.append(text(LEFT - 6, y(value) + 4, f"{value:,.0f}", anchor="end"))
    for at, what in run.events:
        parts.append(f'<path d="M{x(at):.1f} {TOP}V{bottom}" stroke="#999" stroke-dasharray="3 3"/>')
        parts.append(text(x(at) + 4, TOP + 9, what, colour="#666"))
    along = LEFT + 0.0
    for colour, (name, points) in zip(COLOURS * 4, lines.items(), strict=False):
        drawn = " ".join(f"{x(at):.1f},{y(value):.1f}" for at, value in points)
        parts.append(f'<polyline points="{drawn}" fill="none" stroke="{colour}" stroke-width="1.6"/>')
        parts.append(f'<rect x="{along:.0f}" y="{HEIGHT - 13}" width="9" height="9" fill="{colour}"/>')
        parts.append(text(along + 13, HEIGHT - 5, name))
        along += 30 + 6.2 * len(name)
    return f'<g transform="translate(0 {HEIGHT * number})">' + "".join(parts) + "</g>"


def text(x: float, y: float, what: str, anchor: str = "start", weight: str = "normal", colour: str = "#222") -> str:
    style = f'text-anchor="{anchor}" font-weight="{weight}" fill="{colour}"'
    return f'<text x="{x:.1f}" y="{y:.1f}" {style}>{escape(what)}</text>'


def nice(most: float) -> float:
    """The next of 1, 2, 4, 8 times a power of ten: a scale's quarters are round then."""
    power = 1.0
    while power * 8 < most:
        power *= 10
    return next(power * step for step in (1, 2, 4, 8) if power * step >= most)


if __name__ == "__main__":
    main()
