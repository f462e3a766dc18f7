"""`dedup: window …`: dropping records whose explicit id was seen before, over restarts, rebalances and reshards.

The store is in memory and the log is its backup: an assignment reads the window before its position again, its ancestors'
logs included, and so comes to the ids that the reader before it had (ADR 4 says why not a topic of its own).
"""

from __future__ import annotations

import logging
from collections.abc import Iterator

from pipeline.consume.assignment import shard_at
from pipeline.consume.parts import Parts
from pipeline.consume.tracks import Track
from pipeline.consume.unpack import Kind, Unpacked, Unpacker, hash_of
from pipeline.model.dedup import IdWindow, Sight
from pipeline.model.repeats import Marks
from pipeline.model.shards import Place, Shard, ShardMap

log = logging.getLogger("headrace.consume")


class Windows:
    """Makes and applies the windows of one reader's partitions."""

    def __init__(self, parts: Parts, unpacker: Unpacker, window_ms: int) -> None:
        self._parts = parts
        self._unpacker = unpacker
        self._window_ms = window_ms

    def drop(self, unpacked: Unpacked, track: Track) -> None:
        """Leave out the records whose ids were seen before. Redriven ones pass: their first sight is the one that failed."""
        columns, origin, window = unpacked.columns, unpacked.origin, track.ids
        if window is None or columns is None or origin is None:
            return
        ids = columns.ids
        if not any(ids):
            return
        fetched = unpacked.fetched
        before, told = len(unpacked.kept), window.forgotten
        unpacked.kept = [
            index
            for index in unpacked.kept
            if (one := ids[index]) is None
            or index in origin.first_lives
            or window.is_new(one, Sight(fetched.timestamp_ms, fetched.place, fetched.offset, index))
        ]
        unpacked.duplicates = before - len(unpacked.kept)
        if window.forgotten and not told:
            log.warning("%s[%d]: more than %d ids in the dedup window: the oldest go early", *track.place, window.ids_max)

    def fill(self, shard_map: ShardMap, track: Track) -> None:
        """A window as it was at the track's position. Raises BrokerUnavailableError where the log cannot be read."""
        track.ids = IdWindow(self._window_ms)
        shard = shard_at(shard_map, track.place, track.position.offset)
        if shard is None:
            return
        since_ms = self._time_at(track) - self._window_ms
        stretches = list(self._stretches(shard_map, shard, track.position.offset))
        lows = self._parts.offsets_at({place for place, _, _ in stretches}, since_ms)
        with_values, self._unpacker.with_values = self._unpacker.with_values, False
        try:
            for place, low, high in stretches:
                since = lows[place]
                if since is not None:
                    self._scan(track.ids, shard, place, max(low, since), high)
        finally:
            self._unpacker.with_values = with_values

    def _time_at(self, track: Track) -> int:
        """When the record was written that is read next; now where there is none yet."""
        low = track.position.offset
        end = self._parts.bounds([track.place])[1][track.place]
        first = next(self._parts.scan(track.place, low, min(low + 1, end)), None) if low < end else None
        return first.timestamp_ms if first is not None else self._parts.now_ms()

    def _stretches(self, shard_map: ShardMap, shard: Shard, offset: int) -> Iterator[tuple[Place, int, int]]:
        """(place, low, high) of the logs in which a shard's records of before lie, ancestors first."""
        for parent in (shard_map.shards[parent] for parent in shard.parents):
            if parent.seal is not None and parent.place != shard.place:
                yield from self._stretches(shard_map, parent, parent.seal)
        yield shard.place, 0, offset

    def _scan(self, window: IdWindow, shard: Shard, place: Place, low: int, high: int) -> None:
        nothing = Marks()
        for fetched in self._parts.scan(place, low, high):
            unpacked = self._unpacker.unpack(fetched, nothing)
            columns = unpacked.columns
            if unpacked.kind is not Kind.RECORDS or columns is None or not any(columns.ids):
                continue
            for index, one in enumerate(columns.ids):
                if one is not None and shard.low <= hash_of(columns, index) < shard.high:
                    window.is_new(one, Sight(fetched.timestamp_ms, place, fetched.offset, index))
