"""`make bench`: records per second of put, of the consumer and of Kafka → bronze, each beside the plain way in the same run."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

from rich.console import Console
from rich.table import Table

from bench import ours, plain
from bench.schema import orders, write_project
from pipeline.config import Config, load_config
from pipeline.local import stack


@dataclass(frozen=True)
class Figure:
    """Records a second, ours and the plain way's, medians over the rounds."""

    name: str
    ours: float
    plain: float

    @property
    def ratio(self) -> float:
        return self.ours / self.plain


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--records", type=int, default=500_000)
    parser.add_argument("--rounds", type=int, default=3, help="rounds of put and consume, ours and plain in turn")
    parser.add_argument("--only", choices=["kafka", "spark"], help="leave the other part out")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    say = Console(stderr=True)
    with tempfile.TemporaryDirectory(prefix="headrace-bench-") as folder, _stack(Path(folder) / "home"):
        rows = orders(options.records)
        figures: list[Figure] = []
        if options.only != "spark":
            figures += _kafka(Path(folder), rows, options.rounds, say)
        if options.only != "kafka":
            figures.append(_spark(Path(folder), rows, options.rounds, say))
    if options.json:
        sys.stdout.write(json.dumps([asdict(figure) | {"ratio": figure.ratio} for figure in figures]) + "\n")
    else:
        _print(figures, options.records)
    return 0


class _stack:
    """A stack of the run's own."""

    def __init__(self, home: Path) -> None:
        self._home = home

    def __enter__(self) -> None:
        import os

        os.environ["HEADRACE_HOME"] = str(self._home)
        stack.up(self._home)

    def __exit__(self, *_: object) -> None:
        stack.down(self._home)


def _kafka(folder: Path, rows: list[dict[str, Any]], rounds: int, say: Console) -> list[Figure]:
    n = len(rows)
    rates: dict[str, list[float]] = {}

    def note(name: str, seconds: float) -> None:
        rates.setdefault(name, []).append(n / seconds)

    for turn in range(rounds + 1):  # the first warms up, and is not counted
        say.print(f"put and consume, round {turn} of {rounds}", highlight=False)
        config = _config(folder / f"k{turn}", f"orders{turn}")
        ours_put, ours_flushed = ours.put(config, f"orders{turn}", rows)
        plain_put, plain_flushed = plain.put(config.connection, f"plain{turn}", rows)
        _, relaxed = ours.put(config, f"orders{turn}", rows, acks="relaxed")
        ours_read = ours.read(config, f"orders{turn}", n)
        plain_read = plain.read(config.connection, f"plain{turn}", n)
        if turn:
            note("ours put", ours_put)
            note("plain put", plain_put)
            note("ours acknowledged", ours_flushed)
            note("plain acknowledged", plain_flushed)
            note("relaxed", relaxed)
            note("ours read", ours_read)
            note("plain read", plain_read)
    middle = {name: median(values) for name, values in rates.items()}
    return [
        Figure("put, until handed over", middle["ours put"], middle["plain put"]),
        Figure("put, until all are acknowledged", middle["ours acknowledged"], middle["plain acknowledged"]),
        Figure("strict beside relaxed (no barrier)", middle["ours acknowledged"], middle["relaxed"]),
        Figure("for record in consumer", middle["ours read"], middle["plain read"]),
    ]


def _spark(folder: Path, rows: list[dict[str, Any]], rounds: int, say: Console) -> Figure:
    from bench import tables
    from jobs.session import spark_session

    rates: dict[str, list[float]] = {"ours": [], "plain": []}
    spark = spark_session("bench", log_file=folder / "spark.log")
    try:
        for turn in range(rounds + 1):
            say.print(f"Kafka to bronze, round {turn} of {rounds}", highlight=False)
            config = _config(folder / f"s{turn}", f"tabled{turn}", table=True)
            ours.put(config, f"tabled{turn}", rows)
            plain.put(config.connection, f"plaintable{turn}", rows)
            mine = tables.ours(spark, config)
            theirs = tables.plain(spark, config, f"plaintable{turn}", str(folder / f"plain-{turn}"))
            if turn:
                rates["ours"].append(len(rows) / mine)
                rates["plain"].append(len(rows) / theirs)
    finally:
        spark.stop()
    return Figure("Kafka to bronze", median(rates["ours"]), median(rates["plain"]))


def _config(folder: Path, stream: str, table: bool = False) -> Config:
    return load_config(write_project(folder, stream, table))


def _print(figures: list[Figure], records: int) -> None:
    table = Table(title=f"Records a second, {records:,} orders of six fields, one broker, acks=all, lz4", title_justify="left")
    for column in ("", "ours", "the plain way", "ratio"):
        table.add_column(column, justify="right" if column else "left")
    for figure in figures:
        table.add_row(figure.name, f"{figure.ours:,.0f}", f"{figure.plain:,.0f}", f"{figure.ratio:.2f}")
    Console().print(table)


if __name__ == "__main__":
    sys.exit(main())
