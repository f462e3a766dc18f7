"""What a consumer stands on, in memory (``pipeline/consume/parts.py`` says what each is for)."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from typing import Any

from pipeline.consume.checkpoint import Note, Position
from pipeline.consume.parts import Assigned, Revoked
from pipeline.deadletter.letters import DeadLetter
from pipeline.kafka.group_reader import Fetched
from pipeline.kafka.registry_client import UnknownSchemaIdError
from pipeline.model.repeats import Marks
from pipeline.model.shards import Place, ShardMap
from pipeline.schema.value_schema import ValueSchema
from pipeline.testing.group import Group, Logs, MemoryMember

Letter = tuple[DeadLetter, bytes | None, bytes | None]


class Control:
    """The shard map, which everybody sees at once."""

    def __init__(self) -> None:
        self.map = ShardMap()

    def append(self, event: dict[str, Any]) -> None:
        self.map = self.map.apply(event, self.map.position)

    def barrier(self) -> ShardMap:
        return self.map

    def close(self) -> None:
        """Nothing is held."""


class Registry:
    """Schemas by id."""

    def __init__(self) -> None:
        self._texts: dict[int, str] = {}

    def register(self, text: str) -> int:
        self._texts[len(self._texts) + 1] = text
        return len(self._texts)

    def schema_text(self, schema_id: int) -> str:
        if schema_id not in self._texts:
            raise UnknownSchemaIdError(f"the registry has no schema {schema_id}")
        return self._texts[schema_id]

    def belongs(self, schema_id: int, subject: str) -> bool:
        return schema_id in self._texts


class MarksStore:
    """Marks by (place, turn) of one group."""

    def __init__(self, kept: dict[tuple[Place, str], dict[str, Any]]) -> None:
        self._kept = kept

    def write(self, place: Place, turn: str, position: Position, marks: dict[str, Any]) -> int:
        self._kept[place, turn] = marks
        return 0

    def forget(self, place: Place, turn: str) -> None:
        self._kept.pop((place, turn), None)

    def read(self, notes: dict[Place, Note]) -> dict[Place, Marks]:
        return {place: Marks.from_json(self._kept[place, note.turn]) for place, note in notes.items()}

    def close(self) -> None:
        """Nothing is held."""


class Letters:
    """Dead letters, in a list."""

    def __init__(self, kept: list[Letter]) -> None:
        self._kept = kept

    def put(self, letter: DeadLetter, key: bytes | None, raw: bytes | None, headers: list[tuple[str, bytes | None]]) -> None:
        self._kept.append((letter, key, raw))

    def close(self) -> None:
        """Nothing is held."""


class MemoryParts:
    """One stream in memory, as its consumers reach it."""

    def __init__(self, schema: ValueSchema) -> None:
        self.value_schema: ValueSchema | None = schema
        self.control = Control()
        self.registry = Registry()
        self.logs = Logs()
        self.letters_kept: list[Letter] = []
        self._groups: dict[str, Group] = {}
        self._marks: dict[str, dict[tuple[Place, str], dict[str, Any]]] = {}

    def group(self, name: str) -> Group:
        return self._groups.setdefault(name, Group(self.logs))

    def member(self, group: str, protocol: str, on_assigned: Assigned, on_revoked: Revoked) -> MemoryMember:
        return MemoryMember(self.group(group), on_assigned, on_revoked)

    def marks(self, group: str) -> MarksStore:
        return MarksStore(self._marks.setdefault(group, {}))

    def letters(self) -> Letters:
        return Letters(self.letters_kept)

    def finish_pending(self) -> None:
        """Reshards in memory are never pending."""

    def scan(self, place: Place, low: int, high: int) -> Iterator[Fetched]:
        for offset in range(max(low, self.logs.bounds(place)[0]), high):
            found = self.logs.at(place, offset)
            if found is not None:
                yield found

    def bounds(self, places: Iterable[Place]) -> tuple[dict[Place, int], dict[Place, int]]:
        both = {place: self.logs.bounds(place) for place in places}
        return {place: low for place, (low, _) in both.items()}, {place: end for place, (_, end) in both.items()}

    def offsets_at(self, places: Iterable[Place], timestamp_ms: int) -> dict[Place, int | None]:
        return {place: self.logs.offset_at(place, timestamp_ms) for place in places}

    def positions(self, group: str, places: Iterable[Place]) -> dict[Place, int]:
        committed = self.group(group).committed
        return {place: committed[place].offset for place in places if place in committed}

    def set_positions(self, group: str, positions: dict[Place, int]) -> None:
        self.group(group).set_positions(positions)

    def now_ms(self) -> int:
        return time.time_ns() // 1_000_000

    def close(self) -> None:
        """What is in memory outlives its consumers."""
