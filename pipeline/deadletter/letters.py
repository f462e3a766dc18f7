"""Dead letters: what could not be handled, kept raw with the reason, in the topic `<stream>.dead`.

The message's value is the raw bytes as they lay in the log (of the whole message where it cannot be decoded; of the message
that carries it for one record, whose index says which). Everything else is in headers, so that any Kafka tool shows it.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

from pipeline import metrics
from pipeline.config import Connection
from pipeline.kafka.topics import Topics
from pipeline.kafka.writer import Writer

LETTER_HEADER = "headrace-dead"
TEXT_CHARS_MAX = 2_000  # of an error's text


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """Why, and where it came from. ``index`` is -1 where the whole message is meant. Times are epoch milliseconds."""

    topic: str
    partition: int
    offset: int
    index: int
    error: str
    text: str
    attempts: int
    first_ms: int
    last_ms: int
    group: str = ""
    schema_id: int = -1
    producer: str = ""
    seq: int = -1
    id: str | None = None
    generation: int = 0


class DeadLetters:
    """Writes a stream's dead letters, acks=all. Not thread-safe."""

    def __init__(self, connection: Connection, dead_topic: str) -> None:
        self.topic = dead_topic
        Topics(connection).create(dead_topic, 1, {"cleanup.policy": "delete", "retention.ms": "-1"})
        self._stream = dead_topic.removesuffix(".dead")
        self._writer = Writer(connection)

    def put(self, letter: DeadLetter, key: bytes | None, raw: bytes | None, headers: list[tuple[str, bytes | None]]) -> None:
        """Keep a record that failed. Returns once it is acknowledged; raises BrokerUnavailableError: try again, and do not
        commit past the record before."""
        about = json.dumps(asdict(letter), separators=(",", ":"), sort_keys=True).encode()
        self._writer.write(self.topic, 0, key, raw, [*headers, (LETTER_HEADER, about)])
        metrics.DEAD_LETTERS.labels(self._stream, letter.group).inc()

    def close(self) -> None:
        self._writer.close()
