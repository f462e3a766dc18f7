"""Reading dead letters back, and which of them were redriven (`<stream>.redriven`, compacted)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from typing import Any

from pipeline.config import Connection, StreamConfig
from pipeline.deadletter.letters import LETTER_HEADER, DeadLetter
from pipeline.kafka.log_reader import LogEntry, LogReader
from pipeline.kafka.topics import Topics
from pipeline.kafka.writer import Writer

TIMEOUT_S = 15.0
ABOUT_BYTES_MAX = 64 * 1024
_FIELDS = {field.name for field in fields(DeadLetter)}


@dataclass(frozen=True, slots=True)
class Kept:
    """A dead letter as it lies in its topic, at ``offset``. ``headers`` are the message's, without the letter itself."""

    offset: int
    letter: DeadLetter
    key: bytes | None
    raw: bytes | None
    headers: list[tuple[str, bytes | None]]

    def about(self) -> dict[str, Any]:
        """What conditions may ask for."""
        key = (self.key or b"").decode("utf-8", "replace")
        return {"dead": self.offset, "key": key, "bytes": len(self.raw or b""), **asdict(self.letter)}


@dataclass(frozen=True, slots=True)
class Run:
    """One redrive: what it takes, of the letters below ``end``."""

    id: str
    where: str
    end: int


@dataclass(slots=True)
class Redriven:
    """What was redriven: the letters' offsets, and the runs that did not end, oldest first."""

    done: set[int]
    open: list[Run]


class DeadLetterLog:
    """A stream's dead letters and their redrives. Not thread-safe; ``close`` it."""

    def __init__(self, connection: Connection, stream: StreamConfig) -> None:
        self._connection = connection
        self._dead_topic = stream.dead_topic
        self._redriven_topic = f"{stream.name}.redriven"
        self._topics = Topics(connection)
        self._writer = Writer(connection)

    def letters(self, end: int | None = None) -> Iterator[Kept]:
        """Every letter, oldest first; those below ``end``. What is no letter in that topic is passed over."""
        for entry in self._read(self._dead_topic):
            if end is not None and entry.offset >= end:
                return
            kept = _kept(entry)
            if kept is not None:
                yield kept

    def end(self) -> int:
        """One past the newest letter."""
        return self._bounds(self._dead_topic)[1]

    def redriven(self) -> Redriven:
        """What earlier redrives did."""
        done: set[int] = set()
        runs: dict[str, Run] = {}
        for entry in self._read(self._redriven_topic):
            name = (entry.key or b"").decode("utf-8", "replace")
            if name.startswith("letter "):
                done.add(int(name.removeprefix("letter ")))
            elif name.startswith("run "):
                if entry.value is None:
                    runs.pop(name, None)
                else:
                    runs[name] = Run(**json.loads(entry.value))
        return Redriven(done, list(runs.values()))

    def begin(self, run: Run) -> None:
        """A redrive starts: whoever meets it unended goes on with it."""
        self._topics.create(self._redriven_topic, 1, {"cleanup.policy": "compact"})
        self._writer.write(self._redriven_topic, 0, f"run {run.id}".encode(), json.dumps(asdict(run)).encode())

    def mark(self, run: Run, letter: int) -> None:
        """A letter's record is acknowledged by its stream."""
        self._writer.write(self._redriven_topic, 0, f"letter {letter}".encode(), run.id.encode())

    def finish(self, run: Run) -> None:
        self._writer.write(self._redriven_topic, 0, f"run {run.id}".encode(), None)

    def close(self) -> None:
        self._writer.close()

    def _read(self, topic: str) -> Iterator[LogEntry]:
        if self._topics.describe(topic) is None:
            return
        reader = LogReader(self._connection, topic, 0)
        try:
            low, end = reader.bounds(TIMEOUT_S)
            for entry in reader.read(low, end, TIMEOUT_S):
                if entry.offset < end:
                    yield entry
        finally:
            reader.close()

    def _bounds(self, topic: str) -> tuple[int, int]:
        if self._topics.describe(topic) is None:
            return 0, 0
        reader = LogReader(self._connection, topic, 0)
        try:
            return reader.bounds(TIMEOUT_S)
        finally:
            reader.close()


def _kept(entry: LogEntry) -> Kept | None:
    about = next((value for name, value in reversed(entry.headers) if name == LETTER_HEADER), None)
    if about is None or len(about) > ABOUT_BYTES_MAX:
        return None
    try:
        data = json.loads(about)
        if isinstance(data.get("order"), list):
            data["order"] = tuple(int(part) for part in data["order"])
        letter = DeadLetter(**{name: value for name, value in data.items() if name in _FIELDS})
    except (ValueError, TypeError, AttributeError, RecursionError):
        return None
    headers = [(name, value) for name, value in entry.headers if name != LETTER_HEADER]
    return Kept(entry.offset, letter, entry.key, entry.value, headers)
