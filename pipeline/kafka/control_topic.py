"""A stream's control topic as a log of JSON events. No meaning in here: that is the shard map's (pipeline/model/shards.py)."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from typing import Any

from pipeline.config import Connection
from pipeline.kafka.log_reader import LogReader
from pipeline.kafka.writer import Writer

EVENT_BYTES_MAX = 1 << 20


class ControlTopic:
    """Append to and read a control topic. Not thread-safe."""

    def __init__(self, connection: Connection, topic: str) -> None:
        self.topic = topic
        self._reader = LogReader(connection, topic, 0, follow=True)
        self._writer = Writer(connection)

    def bounds(self, timeout_s: float) -> tuple[int, int]:
        """(first offset kept, end offset)."""
        return self._reader.bounds(timeout_s)

    def read(self, start: int, end: int, timeout_s: float) -> Iterator[tuple[int, dict[str, Any] | None]]:
        """(offset, event) from ``start`` on, at least up to ``end``; None stands for bytes that are no JSON object."""
        for entry in self._reader.read(start, end, timeout_s):
            yield entry.offset, _event(entry.value)

    def append(self, event: dict[str, Any], timeout_s: float, key: str | None = None) -> int:
        """Write an event, acknowledged by all in-sync replicas; returns its offset, or one past it where the broker does
        not say.

        ``key`` is unique by default, so that compaction keeps every event. On a time-out the event may still arrive:
        whoever needs to know replays the log. Raises BrokerUnavailableError.
        """
        value = json.dumps(event, separators=(",", ":"), sort_keys=True).encode()
        offset = self._writer.write(self.topic, 0, (key or uuid.uuid4().hex).encode(), value, timeout_s=timeout_s)
        return self.bounds(timeout_s)[1] - 1 if offset is None else offset

    def close(self) -> None:
        self._reader.close()
        self._writer.close()


def _event(value: bytes | None) -> dict[str, Any] | None:
    if value is None or len(value) > EVENT_BYTES_MAX:
        return None
    try:
        event = json.loads(value)
    except (ValueError, RecursionError):
        return None
    return event if isinstance(event, dict) else None
