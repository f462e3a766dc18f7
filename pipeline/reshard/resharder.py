"""Splitting and merging shards while producers and consumers run (DESIGN.md §3, the resharder).

    1 make the partitions · 2 PREPARE, read back · 3 END into each parent · 4 find the first END of each, COMMIT

It may die anywhere: whoever meets the pending reshard finishes it. Finishing is the same for everybody: END again where
there is none yet, then COMMIT with the *first* END of this reshard. Two that finish at once find the same offsets, and the
second COMMIT is not valid any more.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from types import TracebackType

from pipeline.config import Connection, StreamConfig
from pipeline.errors import HeadraceError, ReshardRefusedError, RetryableError, UnknownStreamError
from pipeline.kafka.markers import Markers
from pipeline.kafka.registry_client import RegistryClient
from pipeline.kafka.topics import Topics
from pipeline.model.shards import ABORT, COMMIT, PREPARE, Place, Reshard, Shard, ShardMap, ShardState, shard_event
from pipeline.reshard.control_log import ControlLog
from pipeline.schema.envelope import EMPTY_AGGREGATE
from pipeline.schema.framing import frame

log = logging.getLogger("headrace.reshard")
TIMEOUT_S = 15.0
TRIES = 5  # PREPAREs that lost to another resharder's, before giving up


@dataclass(frozen=True, slots=True)
class Resharded:
    """What a reshard came to."""

    reshard: str
    parents: tuple[str, ...]
    children: tuple[str, ...]
    seals: dict[str, int]


Ranges = Callable[[ShardMap], tuple[list[Shard], list[tuple[int, int]]]]


class Resharder:
    """Reshards one stream, any number of times over the same connections. Not thread-safe; ``close`` it.

    Every call returns when the reshard is committed: producers and consumers follow on their own.
    """

    def __init__(self, connection: Connection, stream: StreamConfig) -> None:
        """Raises what ControlLog does."""
        self._stream = stream
        self._topics = Topics(connection)
        self._control = ControlLog(connection, stream, self._topics)
        self._finisher = Finisher(connection)

    def split(self, shard: str, at: int | None = None) -> Resharded:
        """Split a shard at hash key ``at``: one child gets [low, at), the other [at, high); default: the middle of the range.

        Raises ReshardRefusedError where the shard is not open, ``at`` is not inside it, or the stream has
        ``partitions_max`` partitions.
        """

        def ranges(shard_map: ShardMap) -> tuple[list[Shard], list[tuple[int, int]]]:
            parent = _open_shard(shard_map, shard, self._stream.name)
            middle = (parent.low + parent.high) // 2 if at is None else at
            if not parent.low < middle < parent.high:
                raise ReshardRefusedError(
                    f"shard {shard} holds the hash keys [{parent.low}, {parent.high}): it cannot be split at {middle}"
                )
            return [parent], [(parent.low, middle), (middle, parent.high)]

        return self._reshard(ranges)

    def isolate(self, shard: str, hash_key: int) -> Resharded:
        """Split a shard so that one hash key has a child of its own, and what lies below and above it have theirs. Raises as
        ``split`` does."""

        def ranges(shard_map: ShardMap) -> tuple[list[Shard], list[tuple[int, int]]]:
            parent = _open_shard(shard_map, shard, self._stream.name)
            if not parent.holds(hash_key) or parent.high - parent.low == 1:
                raise ReshardRefusedError(
                    f"shard {shard} holds the hash keys [{parent.low}, {parent.high}): {hash_key} cannot be isolated in it"
                )
            bounds = [parent.low, hash_key, hash_key + 1, parent.high]
            return [parent], [(low, high) for low, high in pairwise(bounds) if low < high]

        return self._reshard(ranges)

    def merge(self, first: str, second: str) -> Resharded:
        """Merge two neighbouring shards into one, in a new partition. Raises as ``split`` does."""

        def ranges(shard_map: ShardMap) -> tuple[list[Shard], list[tuple[int, int]]]:
            parents = sorted((_open_shard(shard_map, s, self._stream.name) for s in (first, second)), key=lambda s: s.low)
            if first == second or parents[0].high != parents[1].low:
                raise ReshardRefusedError(f"shards {first} and {second} are not neighbours: their hash keys do not touch")
            return parents, [(parents[0].low, parents[1].high)]

        return self._reshard(ranges)

    @property
    def map(self) -> ShardMap:
        """The shard map after the last call."""
        return self._control.map

    def close(self) -> None:
        self._finisher.close()
        self._control.close()

    def __enter__(self) -> Resharder:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _reshard(self, ranges: Ranges) -> Resharded:
        control, markers = self._control, self._finisher.markers
        control.check_topic_ids()
        self._finisher.end_value(self._stream)  # before anything is pending: the registry may be down
        for _ in range(TRIES):
            shard_map = control.barrier()
            if shard_map.pending:
                self._finisher(control)
                shard_map = control.barrier()
            parents, bounds = ranges(shard_map)
            children = self._children(shard_map, parents, bounds)
            name = uuid.uuid4().hex
            shard_map = control.append(
                {
                    "type": PREPARE,
                    "reshard": name,
                    "parents": [parent.id for parent in parents],
                    "children": [shard_event(child) for child in children],
                    "scan_from": {parent.id: markers.end_offset(parent.place, TIMEOUT_S) for parent in parents},
                }
            )
            if name in shard_map.pending:
                reshard = shard_map.pending[name]
                return _outcome(self._finisher.seal_and_commit(control, reshard, new=True), reshard)
        raise ReshardRefusedError(f"another reshard of stream {self._stream.name} was first, {TRIES} times over: try again")

    def _children(
        self, shard_map: ShardMap, parents: Sequence[Shard], bounds: Sequence[tuple[int, int]]
    ) -> list[Shard]:
        """Name the children and find a place for each: the first child of a split stays in its parent's partition, every
        other gets one that was never used."""
        places: list[Place] = [parents[0].place] if len(parents) == 1 else []
        places += self._fresh_places(shard_map, len(bounds) - len(places))
        number = 1 + max(int(shard.id[1:]) for shard in shard_map.shards.values() if shard.id[1:].isdigit())
        return [
            Shard(f"s{number + index}", low, high, *place)
            for index, ((low, high), place) in enumerate(zip(bounds, places, strict=True))
        ]

    def _fresh_places(self, shard_map: ShardMap, count: int) -> list[Place]:
        topic = self._stream.topic
        described = self._topics.describe(topic)
        if described is None:
            raise UnknownStreamError(f"topic {topic} is gone: stream {self._stream.name} cannot be resharded")
        found: list[Place] = []
        used = shard_map.places
        partition = 0
        while len(found) < count:
            place = topic, partition
            if partition >= described.partitions:
                if partition >= self._stream.partitions_max:
                    raise ReshardRefusedError(
                        f"stream {self._stream.name} has {described.partitions} partitions and may have "
                        f"{self._stream.partitions_max} (partitions_max): each reshard uses one more and Kafka takes none back. "
                        "Raise the limit"
                    )
                self._topics.set_partitions(topic, partition + 1)
            # One that another tool added and wrote to is passed over: it is not empty.
            if place not in used and (
                partition >= described.partitions or self._finisher.markers.end_offset(place, TIMEOUT_S) == 0
            ):
                found.append(place)
            partition += 1
        return found


class Finisher:
    """Finishes every pending reshard of a control log, or aborts one whose parents cannot be written; for producers and
    readers that meet one. Holds no connection between calls. Not thread-safe."""

    def __init__(self, connection: Connection, schema_id: int | None = None) -> None:
        """``schema_id`` is that of the stream's aggregates, if it is known: without, the registry has to answer."""
        self.markers = Markers(connection)
        self._connection = connection
        self._schema_id = schema_id

    def __call__(self, control: ControlLog) -> None:
        """Logs what stays pending: somebody may have more luck."""
        for reshard in list(control.map.pending.values()):
            try:
                self.seal_and_commit(control, reshard)
            except UnknownStreamError as error:
                log.warning("aborting reshard %s: %s", reshard.id, error)
                control.append({"type": ABORT, "reshard": reshard.id})
            except RetryableError as error:
                log.warning("reshard %s stays pending: %s", reshard.id, error)
        self.markers.close()  # it is rare: no connection is kept for it

    def finish(self, connection: Connection, stream: StreamConfig) -> None:
        """The same, over a control log of its own, for a thread beside one that has to go on. Logs what keeps it."""
        try:
            with ControlLog(connection, stream) as control:
                self(control)
        except HeadraceError as error:
            log.warning("a pending reshard of %s was not finished: %s", stream.name, error)

    def seal_and_commit(self, control: ControlLog, reshard: Reshard, *, new: bool = False) -> ShardMap:
        """END into each parent where there is none yet (in a ``new`` one there is none), then COMMIT with the first of each."""
        seals: dict[str, int] = {}
        for parent_id in reshard.parents:
            place = control.map.shards[parent_id].place
            start = reshard.scan_from[parent_id]
            found = None if new else self.markers.find_end(place, parent_id, reshard.id, start, TIMEOUT_S)
            if found is None:
                self.markers.write_end(place, parent_id, reshard.id, self.end_value(control.stream), TIMEOUT_S)
                found = self.markers.find_end(place, parent_id, reshard.id, start, TIMEOUT_S)
            if found is None:
                raise RetryableError(f"the END of shard {parent_id} was written and is not found yet")
            seals[parent_id] = found
        return control.append({"type": COMMIT, "reshard": reshard.id, "seals": seals})

    def close(self) -> None:
        self.markers.close()

    def end_value(self, stream: StreamConfig) -> bytes:
        """An aggregate without records, so that any client of the topic can read it. Raises RegistryUnavailableError."""
        if self._schema_id is None:
            latest = RegistryClient(self._connection).latest(stream.subject)
            if latest is None:
                return b""
            self._schema_id = latest[0]
        return frame(self._schema_id, EMPTY_AGGREGATE)


def _open_shard(shard_map: ShardMap, shard_id: str, stream: str) -> Shard:
    shard = shard_map.shards.get(shard_id)
    if shard is None or shard.state is not ShardState.OPEN:
        found = "there is none" if shard is None else f"it is {shard.state.value}"
        there = ", ".join(leaf.id for leaf in shard_map.leaves if leaf.state is ShardState.OPEN)
        raise ReshardRefusedError(f"shard {shard_id} of stream {stream} is not open ({found}); open shards: {there}")
    return shard


def _outcome(shard_map: ShardMap, reshard: Reshard) -> Resharded:
    """Somebody else may have finished, or aborted, what we prepared."""
    seals = {parent: shard_map.shards[parent].seal for parent in reshard.parents}
    if any(seal is None for seal in seals.values()):
        raise ReshardRefusedError(f"reshard {reshard.id} was aborted by somebody who could not write to its parents: try again")
    children = tuple(child.id for child in reshard.children)
    return Resharded(reshard.id, reshard.parents, children, {p: s for p, s in seals.items() if s is not None})


__all__ = ["Finisher", "HeadraceError", "Resharded", "Resharder"]
