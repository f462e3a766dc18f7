"""Replay: a stretch of a stream put into another, shard by shard, parents first.

Each source shard has a producer of its own, named after the replay and the shard, whose sequences are the records' places
in the log. So the same replay given again, after a crash or by mistake, makes the same dedup ids, and readers of the target
drop what arrived before, exactly.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from pipeline.config import Config
from pipeline.consume.assignment import starting_positions
from pipeline.consume.rewind import start_of
from pipeline.consume.unpack import Kind, Unpacker
from pipeline.errors import ConfigError, RecordError
from pipeline.kafka.group_reader import Fetched
from pipeline.kafka.groups import Groups
from pipeline.kafka.log_reader import LogReader
from pipeline.kafka.registry_client import RegistryClient
from pipeline.model.record import Record
from pipeline.model.repeats import Marks
from pipeline.model.shards import Place, Shard, ShardMap
from pipeline.produce.producer import Producer
from pipeline.replay.pace import Pace
from pipeline.replay.where import parse_where
from pipeline.reshard.control_log import ControlLog
from pipeline.schema.value_schema import load_schema

TIMEOUT_S = 30.0
INDEX_BITS = 20


@dataclass(slots=True)
class Replayed:
    """Counts. ``refused`` records did not fit the target's schema; ``bad`` messages could not be read."""

    read: int = 0
    put: int = 0
    refused: int = 0
    bad: int = 0


class Replay:
    """One replay; ``run`` it. Raises ConfigError where source and target are the same."""

    def __init__(
        self, config: Config, stream: str, into: str, since: str | datetime, until: datetime | None, where: str | None
    ) -> None:
        if stream == into:
            raise ConfigError("a stream is not replayed into itself: choose another with --into, or read it again with --group")
        self._config = config
        self._source = config.stream(stream)
        self._into = config.stream(into).name
        self._start = start_of(since)
        self._until_ms = None if until is None else int(until.timestamp() * 1000)
        self._where = parse_where(where)
        asked = json.dumps([stream, into, str(self._start), self._until_ms, where or ""])
        self._name = f"replay-{hashlib.sha256(asked.encode()).hexdigest()[:16]}"

    def run(self, *, rate: float | None = None) -> Replayed:
        """Put the records, ``rate`` a second at most; returns once the target acknowledged them."""
        outcome, pace = Replayed(), Pace(rate)
        with ControlLog(self._config.connection, self._source) as control:
            shard_map = control.barrier()
        positions, ends = self._stretch(shard_map)
        unpacker = Unpacker(
            self._source, RegistryClient(self._config.connection), load_schema(self._source.avro_schema), lambda _: shard_map
        )
        marks = Marks()  # of all shards: they are read one after another, parents first
        for shard in shard_map.in_lineage_order():
            low, high = positions[shard.place], ends[shard.place]
            if shard.seal is not None:
                high = min(high, shard.seal)
            positions[shard.place] = max(low, high)  # the next shard in this place stands behind
            if low < high:
                with Producer(self._into, config=self._config, name=f"{self._name}-{shard.id}") as producer:
                    for record in self._records(shard, low, high, unpacker, marks, outcome):
                        pace.step()
                        self._put(producer, record, outcome)
                    producer.flush(TIMEOUT_S)
        return outcome

    def _stretch(self, shard_map: ShardMap) -> tuple[dict[Place, int], dict[Place, int]]:
        groups = Groups(self._config.connection)
        places = shard_map.places
        first, ends = groups.bounds(places)
        wanted = first
        if isinstance(self._start, int):
            wanted = {p: ends[p] if at is None else at for p, at in groups.offsets_at(places, self._start).items()}
        elif self._start != "earliest":
            raise ConfigError("a replay starts at a time, or at earliest")
        if self._until_ms is not None:
            ends = {p: ends[p] if at is None else at for p, at in groups.offsets_at(places, self._until_ms).items()}
        return starting_positions(shard_map, wanted, first), ends

    def _records(
        self, shard: Shard, low: int, high: int, unpacker: Unpacker, marks: Marks, outcome: Replayed
    ) -> Iterator[Record]:
        reader = LogReader(self._config.connection, *shard.place)
        try:
            for entry in reader.read(low, high, TIMEOUT_S):
                if entry.offset >= high:
                    return
                fetched = Fetched(
                    shard.place, entry.offset, entry.key, entry.value, list(entry.headers), entry.timestamp_ms
                )
                unpacked = unpacker.unpack(fetched, marks)
                if unpacked.kind is Kind.BAD:
                    outcome.bad += 1
                stamp, owner = unpacked.stamp, unpacked.shard
                if unpacked.kind is Kind.RECORDS and stamp is not None and owner is not None:
                    marks.accept(stamp.producer, stamp.last_seq, owner.low, owner.high, stamp.created_at_ms)
                outcome.read += len(unpacked.kept)
                yield from (record for record in unpacked.records if self._where(_about(record)))
        finally:
            reader.close()

    def _put(self, producer: Producer, record: Record, outcome: Replayed) -> None:
        position = record.offset << INDEX_BITS | record.index
        try:
            producer.put(record.value, record.key, id=record.id, headers=record.headers, position=position)
            outcome.put += 1
        except RecordError:
            outcome.refused += 1


def _about(record: Record) -> dict[str, object]:
    return {
        "key": record.key,
        "value": record.value,
        "id": record.id,
        "shard": record.shard,
        "partition": record.partition,
        "offset": record.offset,
        "producer": record.producer,
        "seq": record.seq,
        "produced_at_ms": record.produced_at_ms,
    }
