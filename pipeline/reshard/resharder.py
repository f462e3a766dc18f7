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

from pipeline.config import Connection, StreamConfig
from pipeline.errors import HeadraceError, ReshardRefusedError, RetryableError, UnknownStreamError
from pipeline.kafka.markers import end_offset, find_end, write_end
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


def split(connection: Connection, stream: StreamConfig, shard: str, at: int | None = None) -> Resharded:
    """Split a shard at hash key ``at``: one child gets [low, at), the other [at, high); default: the middle of the range.

    Returns when the split is committed: producers and consumers follow on their own. Raises ReshardRefusedError where
    the shard is not open, ``at`` is not inside it, or the stream has ``partitions_max`` partitions.
    """

    def ranges(shard_map: ShardMap) -> tuple[list[Shard], list[tuple[int, int]]]:
        parent = _open_shard(shard_map, shard, stream.name)
        middle = (parent.low + parent.high) // 2 if at is None else at
        if not parent.low < middle < parent.high:
            raise ReshardRefusedError(
                f"shard {shard} holds the hash keys [{parent.low}, {parent.high}): it cannot be split at {middle}"
            )
        return [parent], [(parent.low, middle), (middle, parent.high)]

    return _reshard(connection, stream, ranges)


def merge(connection: Connection, stream: StreamConfig, first: str, second: str) -> Resharded:
    """Merge two neighbouring shards into one, in a new partition. Returns and raises as ``split`` does."""

    def ranges(shard_map: ShardMap) -> tuple[list[Shard], list[tuple[int, int]]]:
        parents = sorted((_open_shard(shard_map, s, stream.name) for s in (first, second)), key=lambda s: s.low)
        if first == second or parents[0].high != parents[1].low:
            raise ReshardRefusedError(f"shards {first} and {second} are not neighbours: their hash keys do not touch")
        return parents, [(parents[0].low, parents[1].high)]

    return _reshard(connection, stream, ranges)


def finish_pending(connection: Connection) -> Callable[[ControlLog], None]:
    """A function that finishes every pending reshard of a control log, or aborts one whose parents cannot be written.
    For producers and readers that meet one."""
    registry = RegistryClient(connection)

    def finish(control: ControlLog) -> None:
        for reshard in list(control.map.pending.values()):
            try:
                _seal_and_commit(connection, control, reshard, registry)
            except UnknownStreamError as error:
                log.warning("aborting reshard %s: %s", reshard.id, error)
                control.append({"type": ABORT, "reshard": reshard.id})
            except RetryableError as error:
                log.warning("reshard %s stays pending: %s", reshard.id, error)

    return finish


def _open_shard(shard_map: ShardMap, shard_id: str, stream: str) -> Shard:
    shard = shard_map.shards.get(shard_id)
    if shard is None or shard.state is not ShardState.OPEN:
        found = "there is none" if shard is None else f"it is {shard.state.value}"
        there = ", ".join(leaf.id for leaf in shard_map.leaves if leaf.state is ShardState.OPEN)
        raise ReshardRefusedError(f"shard {shard_id} of stream {stream} is not open ({found}); open shards: {there}")
    return shard


def _reshard(connection: Connection, stream: StreamConfig, ranges: Ranges) -> Resharded:
    topics = Topics(connection)
    registry = RegistryClient(connection)
    with ControlLog(connection, stream, topics) as control:
        control.check_topic_ids()
        for _ in range(TRIES):
            shard_map = control.barrier()
            if shard_map.pending:
                finish_pending(connection)(control)
                shard_map = control.barrier()
            parents, bounds = ranges(shard_map)
            children = _children(connection, topics, stream, shard_map, parents, bounds)
            name = uuid.uuid4().hex
            shard_map = control.append(
                {
                    "type": PREPARE,
                    "reshard": name,
                    "parents": [parent.id for parent in parents],
                    "children": [shard_event(child) for child in children],
                    "scan_from": {p.id: end_offset(connection, p.place, TIMEOUT_S) for p in parents},
                }
            )
            if name in shard_map.pending:
                reshard = shard_map.pending[name]
                shard_map = _seal_and_commit(connection, control, reshard, registry)
                return _outcome(shard_map, reshard)
        raise ReshardRefusedError(f"another reshard of stream {stream.name} was first, {TRIES} times over: try again")


def _seal_and_commit(connection: Connection, control: ControlLog, reshard: Reshard, registry: RegistryClient) -> ShardMap:
    seals: dict[str, int] = {}
    for parent_id in reshard.parents:
        place = control.map.shards[parent_id].place
        start = reshard.scan_from[parent_id]
        found = find_end(connection, place, parent_id, reshard.id, start, TIMEOUT_S)
        if found is None:
            latest = registry.latest(control.stream.subject)
            value = frame(latest[0], EMPTY_AGGREGATE) if latest else b""
            write_end(connection, place, parent_id, reshard.id, value, TIMEOUT_S)
            found = find_end(connection, place, parent_id, reshard.id, start, TIMEOUT_S)
        if found is None:
            raise RetryableError(f"the END of shard {parent_id} was written and is not found yet")
        seals[parent_id] = found
    return control.append({"type": COMMIT, "reshard": reshard.id, "seals": seals})


def _outcome(shard_map: ShardMap, reshard: Reshard) -> Resharded:
    """Somebody else may have finished, or aborted, what we prepared."""
    seals = {parent: shard_map.shards[parent].seal for parent in reshard.parents}
    if any(seal is None for seal in seals.values()):
        raise ReshardRefusedError(f"reshard {reshard.id} was aborted by somebody who could not write to its parents: try again")
    children = tuple(child.id for child in reshard.children)
    return Resharded(reshard.id, reshard.parents, children, {p: s for p, s in seals.items() if s is not None})


def _children(
    connection: Connection,
    topics: Topics,
    stream: StreamConfig,
    shard_map: ShardMap,
    parents: Sequence[Shard],
    bounds: Sequence[tuple[int, int]],
) -> list[Shard]:
    """Name the children and find a place for each: the first child of a split stays in its parent's partition, every
    other gets one that was never used."""
    places: list[Place] = [parents[0].place] if len(parents) == 1 else []
    places += _fresh_places(connection, topics, stream, shard_map, len(bounds) - len(places))
    number = 1 + max(int(shard.id[1:]) for shard in shard_map.shards.values() if shard.id[1:].isdigit())
    return [
        Shard(f"s{number + index}", low, high, *place)
        for index, ((low, high), place) in enumerate(zip(bounds, places, strict=True))
    ]


def _fresh_places(
    connection: Connection, topics: Topics, stream: StreamConfig, shard_map: ShardMap, count: int
) -> list[Place]:
    topic = stream.topic
    described = topics.describe(topic)
    if described is None:
        raise UnknownStreamError(f"topic {topic} is gone: stream {stream.name} cannot be resharded")
    found: list[Place] = []
    partition = 0
    while len(found) < count:
        place = topic, partition
        if partition >= described.partitions:
            if partition >= stream.partitions_max:
                raise ReshardRefusedError(
                    f"stream {stream.name} has {described.partitions} partitions and may have {stream.partitions_max} "
                    "(partitions_max): each reshard uses one more and Kafka takes none back. Raise the limit, or roll over"
                )
            topics.set_partitions(topic, partition + 1)
        # One that another tool added and wrote to is passed over: it is not empty.
        if place not in shard_map.places and (
            partition >= described.partitions or end_offset(connection, place, TIMEOUT_S) == 0
        ):
            found.append(place)
        partition += 1
    return found


__all__ = ["HeadraceError", "Resharded", "finish_pending", "merge", "split"]
