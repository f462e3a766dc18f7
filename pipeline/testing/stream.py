"""A stream in memory. Acknowledged at once; time is the computer's unless a test gives its own."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.config import Config
from pipeline.config.model import StreamConfig
from pipeline.consume.consumer import Consumer
from pipeline.deadletter.letters import DeadLetter
from pipeline.errors import ConfigError
from pipeline.model.keys import HASH_NAME, even_ranges, hash_key
from pipeline.model.shards import COMMIT, CREATED, PREPARE, Shard, shard_event
from pipeline.model.stamp import END_HEADER, STAMP_HEADER, Stamp, encode_stamp
from pipeline.schema.encode import EntryEncoder, aggregate_body
from pipeline.schema.envelope import EMPTY_AGGREGATE, envelope_text
from pipeline.schema.framing import frame
from pipeline.schema.value_schema import load_schema, parse_schema
from pipeline.testing.parts import MemoryParts

PRODUCER = "memory"
Headers = Sequence[tuple[str, bytes | None]]


class MemoryStream:
    """See ``pipeline.testing``. ``schema`` is a path, or an Avro schema as a dict. ``options`` are those of a stream in
    headrace.yml, such as ``dedup="window 1h"``. Consumers may run in threads of their own; put from one thread."""

    def __init__(self, schema: str | Path | Mapping[str, Any], *, name: str = "memory", shards: int = 4, **options: Any) -> None:
        value = parse_schema(schema) if isinstance(schema, Mapping) else load_schema(schema)
        settings = StreamConfig.model_validate({"name": name, "schema": "memory.avsc", "shards": shards} | options)
        if settings.format != "headrace":
            raise ConfigError("a stream in memory has Headrace's own format: a foreign topic needs a broker")
        streams = {name: settings.model_dump(by_alias=True)}
        self._config = Config.model_validate({"streams": streams, "metrics": {"enabled": False}})
        self._name = name
        self._parts = MemoryParts(value)
        self._encode = EntryEncoder(value).encode
        self._schema_id = self._parts.registry.register(envelope_text(value))
        self._next_seq = 0
        self._sent: dict[str, int] = {}
        ranges = enumerate(even_ranges(shards))
        first = [Shard(f"s{number}", low, high, name, number) for number, (low, high) in ranges]
        for shard in first:
            self._parts.logs.add(shard.place)
        event = {"type": CREATED, "shards": [shard_event(shard) for shard in first], "hash": HASH_NAME}
        self._parts.control.append(event | {"subject": settings.subject, "ordering": settings.ordering})

    # -- producing -----------------------------------------------------------------------------------------------------

    def put(
        self,
        value: Mapping[str, Any] | None,
        key: str,
        *,
        id: str | None = None,
        headers: Headers = (),
        at_ms: int | None = None,
    ) -> None:
        """One record, in an aggregate of its own. ``value`` None is a tombstone. Raises SchemaMismatchError."""
        self.put_many([(value, key)], id=id, headers=headers, at_ms=at_ms)

    def put_many(
        self,
        records: Iterable[tuple[Mapping[str, Any] | None, str]],
        *,
        id: str | None = None,
        headers: Headers = (),
        at_ms: int | None = None,
    ) -> None:
        """Records (value, key), in one aggregate for each shard."""
        now_ms = _now_ms() if at_ms is None else at_ms
        of_shard: dict[str, list[tuple[int, bytes]]] = {}
        for value, key in records:
            body = self._encode(key, id, 0, now_ms, list(headers), value)
            of_shard.setdefault(self._shard_of(key).id, []).append((self._next_seq, body))
            self._next_seq += 1
        for shard_id, entries in of_shard.items():
            self._append(self._parts.control.map.shards[shard_id], entries, now_ms)

    def put_raw(self, value: bytes | None, *, key: bytes | None = None, headers: Headers = (), partition: int = 0) -> None:
        """A message as somebody else would write it: foreign, or damaged."""
        self._parts.logs.append((self._name, partition), key, value, list(headers), _now_ms())

    def redeliver(self, partition: int = 0) -> None:
        """The newest message of a partition once more, as a producer's retry leaves it."""
        place = (self._name, partition)
        newest = self._parts.logs.at(place, self._parts.logs.bounds(place)[1] - 1)
        if newest is None:
            raise ConfigError(f"partition {partition} is empty")
        self._parts.logs.append(place, newest.key, newest.value, newest.headers, newest.timestamp_ms)

    # -- resharding, retention -----------------------------------------------------------------------------------------

    def split(self, shard: str) -> list[str]:
        """Split a shard in the middle; returns its children."""
        parent = self._parts.control.map.shards[shard]
        middle = (parent.low + parent.high) // 2
        return self._reshard([parent], [(parent.low, middle), (middle, parent.high)])

    def merge(self, shard: str, other: str) -> str:
        """Merge two neighbours; returns the child."""
        parents = sorted((self._parts.control.map.shards[one] for one in (shard, other)), key=lambda one: one.low)
        return self._reshard(parents, [(parents[0].low, parents[1].high)])[0]

    def trim(self, partition: int, first: int) -> None:
        """Let retention remove what is below offset ``first``."""
        self._parts.logs.trim((self._name, partition), first)

    @property
    def open_shards(self) -> list[str]:
        return [shard.id for shard in self._parts.control.map.leaves]

    # -- consuming -----------------------------------------------------------------------------------------------------

    def consumer(self, group: str = "test", **options: Any) -> Consumer:
        """The real consumer, a member of ``group``; ``options`` are its own. Several share out the shards."""
        return Consumer(self._name, group=group, config=self._config, parts=self._parts, **options)

    def crash(self, group: str = "test") -> None:
        """The group's members are gone, as after SIGKILL: nothing more is committed, others get their shards."""
        for member in list(self._parts.group(group).members):
            member.crash()

    @property
    def dead_letters(self) -> list[DeadLetter]:
        return [letter for letter, _, _ in self._parts.letters_kept]

    # -- inside --------------------------------------------------------------------------------------------------------

    def _shard_of(self, key: str) -> Shard:
        hashed = hash_key(key)
        return next(shard for shard in self._parts.control.map.leaves if shard.low <= hashed < shard.high)

    def _append(self, shard: Shard, entries: list[tuple[int, bytes]], now_ms: int) -> None:
        first, last = entries[0][0], entries[-1][0]
        stamp = Stamp(shard.id, PRODUCER, 0, first, last, self._sent.get(shard.id, -1), len(entries), now_ms)
        self._sent[shard.id] = last
        value = frame(self._schema_id, aggregate_body((seq - first, body) for seq, body in entries))
        self._parts.logs.append(shard.place, shard.id.encode(), value, [(STAMP_HEADER, encode_stamp(stamp))], now_ms)

    def _reshard(self, parents: list[Shard], ranges: list[tuple[int, int]]) -> list[str]:
        control, logs = self._parts.control, self._parts.logs
        name, partition = f"r{control.map.position}", len(logs.places)
        children = [
            Shard(f"{name}-{number}", low, high, self._name, partition + number) for number, (low, high) in enumerate(ranges)
        ]
        scan_from = {parent.id: logs.bounds(parent.place)[1] for parent in parents}
        prepare = {"type": PREPARE, "reshard": name, "parents": [parent.id for parent in parents], "scan_from": scan_from}
        control.append(prepare | {"children": [shard_event(child) for child in children]})
        if name not in control.map.pending:
            raise ConfigError(f"{', '.join(parent.id for parent in parents)}: not open, or not neighbours")
        end = [(END_HEADER, json.dumps({"shard": parents[0].id, "reshard": name}).encode())]
        value = frame(self._schema_id, EMPTY_AGGREGATE)
        seals = {parent.id: logs.append(parent.place, parent.id.encode(), value, list(end), _now_ms()) for parent in parents}
        control.append({"type": COMMIT, "reshard": name, "seals": seals})
        for child in children:
            logs.add(child.place)
        return [child.id for child in children]


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
