"""What a consumer stands on, as protocols: a broker's, or one in memory for tests of handlers (pipeline/testing)."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Protocol

from pipeline.config import Connection, StreamConfig
from pipeline.consume.checkpoint import MarksTopic, Note, Position
from pipeline.consume.foreign_topic import ForeignTopic
from pipeline.deadletter.letters import DeadLetter, DeadLetters
from pipeline.kafka.group_reader import Committed, Fetched, GroupReader, Then
from pipeline.kafka.groups import Groups
from pipeline.kafka.log_reader import LogReader
from pipeline.kafka.registry_client import RegistryClient
from pipeline.model.repeats import Marks
from pipeline.model.shards import Place, ShardMap
from pipeline.reshard.control_log import ControlLog
from pipeline.reshard.resharder import Finisher
from pipeline.schema.value_schema import ValueSchema, load_schema

TIMEOUT_S = 15.0
Assigned = Callable[[list[Place]], None]
Revoked = Callable[[list[Place], bool], None]


class Lineage(Protocol):
    """The shards of a stream, and who came from whom."""

    @property
    def map(self) -> ShardMap: ...

    def barrier(self) -> ShardMap:
        """The map with every event in it that was acknowledged before this call began."""

    def close(self) -> None: ...


class GroupMember(Protocol):
    """See ``pipeline/kafka/group_reader.py``."""

    def subscribe(self, topics: Iterable[str]) -> None: ...
    def poll(self, timeout_s: float) -> Fetched | None: ...
    def pause(self, places: Iterable[Place]) -> None: ...
    def resume(self, places: Iterable[Place]) -> None: ...
    def seek(self, place: Place, offset: int) -> None: ...
    def start(self, place: Place, offset: int) -> bool: ...
    def committed(self, places: Iterable[Place]) -> dict[Place, Committed]: ...
    def commit(self, positions: dict[Place, Committed], then: Then = ...) -> None: ...
    def bounds(self, place: Place) -> tuple[int, int]: ...
    def known_lag(self, place: Place, offset: int) -> int: ...
    def offsets_at(self, places: Iterable[Place], timestamp_ms: int) -> dict[Place, int]: ...
    def close(self) -> None: ...


class MarksStore(Protocol):
    """See ``checkpoint.py``."""

    def write(self, place: Place, turn: str, position: Position, marks: dict[str, Any]) -> int: ...
    def forget(self, place: Place, turn: str) -> None: ...
    def read(self, notes: dict[Place, Note]) -> dict[Place, Marks]: ...
    def close(self) -> None: ...


class Letters(Protocol):
    """See ``pipeline/deadletter/letters.py``."""

    def put(self, letter: DeadLetter, key: bytes | None, raw: bytes | None, headers: list[tuple[str, bytes | None]]) -> None: ...
    def close(self) -> None: ...


class Schemas(Protocol):
    """See ``pipeline/kafka/registry_client.py``."""

    def schema_text(self, schema_id: int) -> str: ...
    def belongs(self, schema_id: int, subject: str) -> bool: ...


class Parts(Protocol):
    """One stream, as a consumer reaches it."""

    @property
    def control(self) -> Lineage: ...
    @property
    def registry(self) -> Schemas: ...
    @property
    def value_schema(self) -> ValueSchema | None: ...
    def member(self, group: str, protocol: str, on_assigned: Assigned, on_revoked: Revoked) -> GroupMember: ...
    def marks(self, group: str) -> MarksStore: ...
    def letters(self) -> Letters: ...
    def finish_pending(self) -> None: ...
    def scan(self, place: Place, low: int, high: int) -> Iterator[Fetched]: ...
    def bounds(self, places: Iterable[Place]) -> tuple[dict[Place, int], dict[Place, int]]: ...
    def offsets_at(self, places: Iterable[Place], timestamp_ms: int) -> dict[Place, int | None]: ...
    def positions(self, group: str, places: Iterable[Place]) -> dict[Place, int]: ...
    def set_positions(self, group: str, positions: dict[Place, int]) -> None: ...
    def now_ms(self) -> int: ...
    def close(self) -> None: ...


class BrokerParts:
    """On a broker and a registry. Raises UnknownStreamError where the stream does not exist."""

    def __init__(self, connection: Connection, stream: StreamConfig) -> None:
        self._connection = connection
        self._stream = stream
        self.value_schema = load_schema(stream.schema_path) if stream.schema_path else None
        self.registry = RegistryClient(connection)
        self._finish = Finisher(connection)
        self._log = ControlLog(connection, stream) if stream.format == "headrace" else None
        self.control: Lineage = self._log or ForeignTopic(connection, stream)

    def member(self, group: str, protocol: str, on_assigned: Assigned, on_revoked: Revoked) -> GroupMember:
        return GroupReader(self._connection, group, protocol, on_assigned, on_revoked)

    def marks(self, group: str) -> MarksStore:
        return MarksTopic(self._connection, self._stream.name, group)

    def letters(self) -> Letters:
        return DeadLetters(self._connection, self._stream.dead_topic)

    def finish_pending(self) -> None:
        if self._log is not None:
            self._finish(self._log)

    def scan(self, place: Place, low: int, high: int) -> Iterator[Fetched]:
        """The messages of a stretch of a partition, apart from the group."""
        reader = LogReader(self._connection, *place)
        try:
            first, _ = reader.bounds(TIMEOUT_S)
            for entry in reader.read(max(first, low), high, TIMEOUT_S):
                if entry.offset < high:
                    yield Fetched(place, entry.offset, entry.key, entry.value, list(entry.headers), entry.timestamp_ms)
        finally:
            reader.close()

    def bounds(self, places: Iterable[Place]) -> tuple[dict[Place, int], dict[Place, int]]:
        """(first offsets kept, end offsets)."""
        return self._groups.bounds(places)

    def offsets_at(self, places: Iterable[Place], timestamp_ms: int) -> dict[Place, int | None]:
        """The first offsets at or after a time; None where there is none."""
        return self._groups.offsets_at(places, max(0, timestamp_ms))

    def positions(self, group: str, places: Iterable[Place]) -> dict[Place, int]:
        """The next offsets that a group committed."""
        return self._groups.positions(group, places)

    def set_positions(self, group: str, positions: dict[Place, int]) -> None:
        """Set them. Raises StopError where the group has members."""
        self._groups.set_positions(group, positions)

    @property
    def _groups(self) -> Groups:
        return Groups(self._connection)

    def now_ms(self) -> int:
        return time.time_ns() // 1_000_000

    def close(self) -> None:
        self.control.close()
