"""The demo's producer: puts flights and weather from their stored positions on, and may be killed at any moment.

    python -m jobs.demo.producer_process --positions FOLDER [--rows N] [--hold-at POSITION] [--hold-late]

The producers have stable names and take their sequence numbers from the source's positions, so a start after a crash
makes the same dedup ids. What is stored stays a few chunks behind what is acknowledged, so a
kill at any moment leaves records that come again.

Says on standard output, a line of JSON at a time, how far it is; ends when its standard input ends, so that it never
outlives the demo.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import threading
import time
from collections.abc import Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from pathlib import Path

from connectors.nycflights import CHUNK_RECORDS_MAX, FlightEvents, Weather
from connectors.positions import PositionFile
from connectors.protocols import Source
from pipeline import Producer
from pipeline.errors import StopError

STORE_EVERY_CHUNKS = 4
CHUNKS_MIN = 40  # also a short run is reported, stored and killed in its middle
FLUSH_TIMEOUT_S = 120.0
_HOLD_REPORT_S = 0.05


class Feed:
    """One source into one stream, from its stored position to its end."""

    def __init__(self, stream: str, source: Source, positions: Path, hold_at: int | None = None) -> None:
        self._stream = stream
        self._source = source
        self._file = PositionFile(positions / f"{stream}.json")
        self._hold_at = hold_at
        self._stored = self._file.load()
        self._put = self._acknowledged = self._stored

    def run(self) -> None:
        """Raises what the producer raises."""
        chunk_records = max(1, min(CHUNK_RECORDS_MAX, len(self._source) // CHUNKS_MIN))
        lag = STORE_EVERY_CHUNKS * chunk_records
        with Producer(self._stream, name=f"demo-{self._stream}") as producer:
            for number, chunk in enumerate(self._source.read(self._stored + 1, chunk_records_max=chunk_records), 1):
                if self._hold_at is not None and chunk.first_position >= self._hold_at:
                    self._hold(producer, lag)
                for position, key, value in zip(
                    range(chunk.first_position, chunk.next_position), chunk.keys, chunk.values, strict=True
                ):
                    producer.put(value, key, position=position)
                self._put = chunk.next_position - 1
                self._look(producer)
                if number % STORE_EVERY_CHUNKS == 0:
                    self._store(self._acknowledged - lag)
                self._report()
            producer.flush(FLUSH_TIMEOUT_S)
            self._look(producer)
        self._store(self._acknowledged)
        self._report(done=True)

    def _look(self, producer: Producer) -> None:
        self._acknowledged = max(self._stored, producer.acknowledged_position)
        # That position also passes records that failed: to store it would leave them behind.
        if failed := producer.stats.records_failed:
            raise StopError(f"{failed:,} records of {self._stream} were not acknowledged: start again from the stored position")

    def _store(self, position: int) -> None:
        if position > self._stored:
            self._file.store(position)
            self._stored = position

    def _hold(self, producer: Producer, lag: int) -> None:
        """Wait to be killed: a small source must not be over before the demo's SIGKILL comes."""
        producer.flush(FLUSH_TIMEOUT_S)
        while True:
            self._look(producer)
            self._store(self._acknowledged - lag)
            self._report()
            time.sleep(_HOLD_REPORT_S)

    def _report(self, *, done: bool = False) -> None:
        line = {
            "stream": self._stream,
            "put": self._put,
            "acknowledged": self._acknowledged,
            "stored": self._stored,
            "done": done,
        }
        sys.stdout.write(json.dumps(line) + "\n")
        sys.stdout.flush()


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m jobs.demo.producer_process")
    parser.add_argument("--rows", type=int, help="the first N flights and their weather")
    parser.add_argument("--positions", type=Path, required=True, help="folder of the stored positions")
    parser.add_argument("--hold-at", type=int, default=None, help="put no flight event from this position on; wait to be killed")
    parser.add_argument("--hold-late", action="store_true", help="put no weather that comes late")
    options = parser.parse_args(arguments)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    feeds = [
        Feed("flights", FlightEvents(options.rows), options.positions, options.hold_at),
        Feed("weather", Weather(options.rows, late=not options.hold_late), options.positions),
    ]
    with ThreadPoolExecutor(len(feeds)) as threads:
        running = [threads.submit(feed.run) for feed in feeds]
        for future in wait(running, return_when=FIRST_EXCEPTION).done:
            if (error := future.exception()) is not None:
                sys.stderr.write(f"{type(error).__name__}: {error}\n")
                sys.stderr.flush()
                os._exit(1)  # the other feed may go on for long, or hold for ever
    return 0


def _end_with_parent() -> None:
    while os.read(0, 1024):  # not sys.stdin: a thread that waits in it cannot be ended with the interpreter
        pass
    os._exit(1)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
