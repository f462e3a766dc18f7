"""Dead letters: what could not be handled, kept raw with the reason, in the topic `<stream>.dead`.

The message's value is the raw bytes as they lay in the log: of the whole message where it cannot be decoded, else of the one
record, in an aggregate of its own with the same schema id. Everything else is in headers, so that any Kafka tool shows it.
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
    """Why, and where it came from. ``index`` is -1 where the whole message is meant. ``order`` is the record's first order
    token (generation, offset, index). Times are epoch milliseconds."""

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
    shard: str = ""
    order: tuple[int, int, int] | None = None


class DeadLetters:
    """Writes a stream's dead letters, acks=all. Not thread-safe."""

    def __init__(self, connection: Connection, dead_topic: str) -> None:
        self.topic = dead_topic
        # A letter holds one record's bytes, or a message whole, and its headers: what came must fit.
        keep = {"cleanup.policy": "delete", "retention.ms": "-1", "max.message.bytes": str(16 << 20)}
        Topics(connection).create(dead_topic, 1, keep)
        self._stream = dead_topic.removesuffix(".dead")
        self._writer = Writer(connection)

    def put(self, letter: DeadLetter, key: bytes | None, raw: bytes | None, headers: list[tuple[str, bytes | None]]) -> None:
        """Keep a record that failed. Returns once it is acknowledged; raises BrokerUnavailableError: try again, and do not
        commit past the record before."""
        about = json.dumps(asdict(letter), separators=(",", ":"), sort_keys=True).encode()
        self._writer.write(self.topic, 0, key, raw, [*headers, (LETTER_HEADER, about)])
        metrics.DEAD_LETTERS.labels(self._stream, letter.group, letter.error[:64]).inc()

    def close(self) -> None:
        self._writer.close()
