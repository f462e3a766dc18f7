"""`make bench`: each of our figures beside the plain way, a peer, or ourselves without something, in the same run."""

from __future__ import annotations

import argparse
import importlib
import json
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console

from bench.figure import Arena, Figure, show
from pipeline.local import stack

# Modules here with run(Arena) -> list[Figure]
SECTIONS = (
    "kafka",
    "produce",
    "traffic",
    "consume",
    "seeing",
    "reshard",
    "registry",
    "decoding",
    "spark",
    "freshness",
    "merge",
    "maintain",
    "quality",
    "gold",
)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--records", type=int, default=500_000)
    parser.add_argument("--rounds", type=int, default=3, help="rounds that count, after one to warm up")
    parser.add_argument("--table-records", type=int, default=2_000_000, help="of the section spark")
    parser.add_argument("--table-rounds", type=int, default=4, help="of the section spark, which takes the best")
    parser.add_argument("--only", choices=SECTIONS, action="append", help="this section alone (may be given several times)")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    figures: list[Figure] = []
    with tempfile.TemporaryDirectory(prefix="headrace-bench-") as folder, _stack(Path(folder) / "home"):
        for name in options.only or SECTIONS:
            own = Path(folder) / name
            own.mkdir()
            console = Console(stderr=True)
            arena = Arena(own, options.records, options.rounds, console, options.table_records, options.table_rounds)
            figures += importlib.import_module(f"bench.{name}").run(arena)
    if options.json:
        sys.stdout.write(json.dumps([figure.to_json() for figure in figures]) + "\n")
    else:
        most = f"{options.records:,} orders of six fields, one broker, acks=all, lz4; medians of {options.rounds} rounds"
        show(figures, f"{most}; spark: {options.table_records:,} orders, best of {options.table_rounds}")
    return 0


@contextmanager
def _stack(home: Path) -> Iterator[None]:
    """A stack of the run's own."""
    os.environ["HEADRACE_HOME"] = str(home)
    stack.up(home)
    try:
        yield
    finally:
        stack.down(home)


if __name__ == "__main__":
    sys.exit(main())
