"""``python -m jobs.demo [--rows N] [--json]``: what ``headrace demo`` runs."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from jobs.demo import interrupts
from jobs.demo.run import run_demo


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="headrace demo", description="A year of real flights through Kafka and Spark, with proof."
    )
    parser.add_argument("--rows", type=int, default=None, metavar="N", help="only the first N flights (default: all 336,776)")
    parser.add_argument("--json", action="store_true", help="print only the result, as JSON")
    options = parser.parse_args(arguments)
    interrupts.install()
    return run_demo(options.rows, options.json)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
