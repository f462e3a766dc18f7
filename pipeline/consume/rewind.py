"""Starting a group over: at the beginning, at the end, at a time, or at offsets. The group has to be stopped.

A rewound parent takes its descendants with it: they are read again after it, at any depth. The new positions carry no
marks, since reading records again is what was asked for.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from pipeline.config import Config, load_config
from pipeline.consume.assignment import starting_positions
from pipeline.consume.gating import EARLIEST, LATEST
from pipeline.consume.parts import BrokerParts, Parts
from pipeline.errors import ConfigError
from pipeline.model.shards import Place, ShardMap

To = str | datetime | Mapping[int, int] | Mapping[Place, int]


def start_of(start: str | datetime) -> str | int:
    """Check a start: "earliest", "latest", or a time, which becomes epoch milliseconds. Raises ConfigError."""
    if isinstance(start, datetime):
        if start.tzinfo is None:
            raise ConfigError("a time to start at needs its zone, for instance datetime(…, tzinfo=UTC)")
        return int(start.timestamp() * 1000)
    if start not in (EARLIEST, LATEST):
        raise ConfigError(f"start has to be 'earliest', 'latest' or a datetime, not {start!r}")
    return start


def rewind(stream: str, group: str, to: To, *, config: Config | None = None) -> dict[Place, int]:
    """Set where a stopped group goes on: "earliest", "latest", the first records at or after a time, or offsets by partition
    (or by (topic, partition)); partitions that are not named keep their commits then. Returns the next offset by (topic,
    partition). Raises StopError where the group still has members, ConfigError for an offset that the log does not have."""
    config = config or load_config()
    parts = BrokerParts(config.connection, config.stream(stream))
    try:
        return rewind_over(parts, config.stream(stream).topic, group, to)
    finally:
        parts.close()


def rewind_over(parts: Parts, topic: str, group: str, to: To) -> dict[Place, int]:
    """``rewind``, of a stream as a consumer reaches it."""
    start = start_of(to) if isinstance(to, str | datetime) else None
    shard_map = parts.control.barrier()
    first, ends = parts.bounds(shard_map.places)
    if start == EARLIEST:
        wanted = first
    elif start == LATEST:
        wanted = ends
    elif isinstance(start, int):
        at = parts.offsets_at(shard_map.places, start)
        wanted = {place: ends[place] if offset is None else offset for place, offset in at.items()}
    else:
        assert isinstance(to, Mapping)
        wanted = parts.positions(group, shard_map.places)
        wanted = {place: wanted.get(place, first[place]) for place in shard_map.places}
        wanted |= _checked(topic, to, shard_map, first, ends)
    positions = starting_positions(shard_map, wanted, first)
    parts.set_positions(group, positions)
    return positions


def _checked(
    topic: str,
    to: Mapping[int, int] | Mapping[Place, int],
    shard_map: ShardMap,
    first: Mapping[Place, int],
    ends: Mapping[Place, int],
) -> dict[Place, int]:
    asked: dict[Place, int] = {}
    for where, offset in to.items():
        place = (topic, where) if isinstance(where, int) else where
        if place not in shard_map.places:
            raise ConfigError(f"{place[0]}[{place[1]}] is not a partition of this stream")
        if not first[place] <= offset <= ends[place]:
            raise ConfigError(f"{place[0]}[{place[1]}] has offsets from {first[place]} to {ends[place]}, not {offset}")
        asked[place] = offset
    return asked
