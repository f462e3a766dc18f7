"""END markers in data partitions: writing one, and finding the first of a reshard."""

from __future__ import annotations

import json

from pipeline.config import Connection
from pipeline.kafka.log_reader import LogEntry, LogReader
from pipeline.kafka.writer import Writer
from pipeline.model.shards import Place
from pipeline.model.stamp import END_HEADER


def end_header(shard: str, reshard: str) -> bytes:
    """The value of an END's header: it names shard and reshard, so that one of an aborted reshard seals nothing."""
    return json.dumps({"shard": shard, "reshard": reshard}, sort_keys=True).encode()


def write_end(connection: Connection, place: Place, shard: str, reshard: str, value: bytes, timeout_s: float) -> None:
    """Write an END marker with acks=all. Raises BrokerUnavailableError."""
    headers = [(END_HEADER, end_header(shard, reshard))]
    Writer(connection).write(*place, key=shard.encode(), value=value, headers=headers, timeout_s=timeout_s)


def find_end(connection: Connection, place: Place, shard: str, reshard: str, start: int, timeout_s: float) -> int | None:
    """Offset of the first END of this reshard for this shard, from ``start`` to the end of the moment; None without."""
    wanted = end_header(shard, reshard)
    reader = LogReader(connection, *place)
    try:
        low, end = reader.bounds(timeout_s)
        for entry in reader.read(max(start, low), end, timeout_s):
            if end_of(entry) == wanted:
                return entry.offset
        return None
    finally:
        reader.close()


def end_offset(connection: Connection, place: Place, timeout_s: float) -> int:
    """The partition's end offset, asked of its leader now."""
    reader = LogReader(connection, *place)
    try:
        return reader.bounds(timeout_s)[1]
    finally:
        reader.close()


def end_of(entry: LogEntry) -> bytes | None:
    return next((value for name, value in entry.headers if name == END_HEADER), None)
