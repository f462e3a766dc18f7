"""END markers in data partitions: writing one, and finding the first of a reshard."""

from __future__ import annotations

import json
from types import TracebackType

from pipeline.config import Connection
from pipeline.kafka.log_reader import LogEntry, LogReader
from pipeline.kafka.writer import Writer
from pipeline.model.shards import Place
from pipeline.model.stamp import END_HEADER


def end_header(shard: str, reshard: str) -> bytes:
    """The value of an END's header: it names shard and reshard, so that one of an aborted reshard seals nothing."""
    return json.dumps({"shard": shard, "reshard": reshard}, sort_keys=True).encode()


class Markers:
    """Writes and finds ENDs over one client each, kept. Not thread-safe; ``close`` it. Raises BrokerUnavailableError."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._reader: LogReader | None = None
        self._writer = Writer(connection)

    def write_end(self, place: Place, shard: str, reshard: str, value: bytes, timeout_s: float) -> None:
        """Write an END marker with acks=all."""
        headers = [(END_HEADER, end_header(shard, reshard))]
        self._writer.write(*place, key=shard.encode(), value=value, headers=headers, timeout_s=timeout_s)

    def find_end(self, place: Place, shard: str, reshard: str, start: int, timeout_s: float) -> int | None:
        """Offset of the first END of this reshard for this shard, from ``start`` to the end of the moment; None without."""
        wanted = end_header(shard, reshard)
        reader = self._at(place)
        low, end = reader.bounds(timeout_s)
        for entry in reader.read(max(start, low), end, timeout_s):
            if end_of(entry) == wanted:
                return entry.offset
        return None

    def end_offset(self, place: Place, timeout_s: float) -> int:
        """The partition's end offset, asked of its leader now."""
        return self._at(place).bounds(timeout_s)[1]

    def close(self) -> None:
        self._writer.close()
        if self._reader is not None:
            self._reader.close()
            self._reader = None

    def __enter__(self) -> Markers:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _at(self, place: Place) -> LogReader:
        if self._reader is None:
            self._reader = LogReader(self._connection, *place)
        self._reader.turn_to(*place)
        return self._reader


def end_of(entry: LogEntry) -> bytes | None:
    return next((value for name, value in entry.headers if name == END_HEADER), None)
