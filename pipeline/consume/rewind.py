"""Starting a group over: at the beginning, at the end, or at a time. The group has to be stopped.

A rewound parent takes its descendants with it: they are read again after it, at any depth. The new positions carry no
marks, since reading records again is what was asked for.
"""

from __future__ import annotations

from datetime import datetime

from pipeline.config import Config, load_config
from pipeline.consume.assignment import starting_positions
from pipeline.consume.reading import EARLIEST, LATEST
from pipeline.errors import ConfigError
from pipeline.kafka.groups import Groups
from pipeline.reshard.control_log import ControlLog


def start_of(start: str | datetime) -> str | int:
    """Check a start: "earliest", "latest", or a time, which becomes epoch milliseconds. Raises ConfigError."""
    if isinstance(start, datetime):
        if start.tzinfo is None:
            raise ConfigError("a time to start at needs its zone, for instance datetime(…, tzinfo=UTC)")
        return int(start.timestamp() * 1000)
    if start not in (EARLIEST, LATEST):
        raise ConfigError(f"start has to be 'earliest', 'latest' or a datetime, not {start!r}")
    return start


def rewind(stream: str, group: str, to: str | datetime, *, config: Config | None = None) -> dict[tuple[str, int], int]:
    """Set where a stopped group goes on: "earliest", "latest" or the first records at or after a time. Returns the next
    offset by (topic, partition). Raises StopError where the group still has members."""
    start = start_of(to)
    config = config or load_config()
    with ControlLog(config.connection, config.stream(stream)) as control:
        shard_map = control.barrier()
    groups = Groups(config.connection)
    first, ends = groups.bounds(shard_map.places)
    if start == EARLIEST:
        wanted = first
    elif start == LATEST:
        wanted = ends
    else:
        at = groups.offsets_at(shard_map.places, int(start))
        wanted = {place: ends[place] if offset is None else offset for place, offset in at.items()}
    positions = starting_positions(shard_map, wanted, first)
    groups.set_positions(group, positions)
    return positions
