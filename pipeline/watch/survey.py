"""A survey: one look at the cluster from outside, so that also streams whose processes are all dead are seen.

``lag_of`` is pure; ``Surveyor`` asks. It reads control logs (and keeps them open), end offsets and committed positions; it
writes nothing.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from pipeline.config import Config
from pipeline.errors import RetryableError, StopError
from pipeline.kafka.overview import Metadata, Overview
from pipeline.kafka.topics import Topics
from pipeline.model.keys import HASH_SPACE
from pipeline.model.shards import Place, Shard, ShardMap, ShardState
from pipeline.reshard.control_log import ControlLog

log = logging.getLogger("headrace.watch")
Bounds = tuple[Mapping[Place, int], Mapping[Place, int]]
"""(first offsets kept, end offsets)"""


@dataclass(frozen=True, slots=True)
class ShardView:
    """An open or sealing shard. ``messages`` are those that the log keeps of its partition."""

    id: str
    place: Place
    share: float
    generation: int
    state: str
    messages: int


@dataclass(frozen=True, slots=True)
class StreamView:
    """``states`` counts shards by state; ``pending_s`` is how long the oldest pending reshard was seen; ``lags`` are messages
    by group and shard. ``problem`` says why a stream cannot be read; the rest is empty then."""

    name: str
    states: Mapping[str, int]
    shards: tuple[ShardView, ...]
    partitions_used: int
    partitions_max: int
    pending: int
    pending_s: float
    dead_letters: int
    lags: Mapping[str, Mapping[str, int]]
    problem: str | None = None


@dataclass(frozen=True, slots=True)
class Survey:
    brokers: int
    under_replicated: int
    streams: tuple[StreamView, ...]
    seconds: float


class Surveyor:
    """Not thread-safe. ``clock`` is monotonic, in seconds."""

    def __init__(self, config: Config, clock: Callable[[], float] = time.monotonic) -> None:
        self._config = config
        self._clock = clock
        self._overview = Overview(config.connection)
        self._topics = Topics(config.connection)
        self._logs: dict[str, ControlLog] = {}
        self._pending_since: dict[tuple[str, str], float] = {}

    def look(self) -> Survey:
        """Raises BrokerUnavailableError."""
        began = self._clock()
        metadata = self._overview.metadata()
        maps, problems = self._maps(metadata)
        if not all(partition < metadata.partitions.get(topic, 0) for one in maps.values() for topic, partition in one.places):
            metadata = self._overview.metadata()  # a reshard came between
        dead = {name: (self._config.stream(name).dead_topic, 0) for name in maps}
        places = {place for one in maps.values() for place in one.places}
        asked = places | {place for place in dead.values() if place[0] in metadata.partitions}
        bounds = self._overview.bounds(sorted(asked))
        committed = self._overview.committed(self._overview.groups(), sorted(places))
        views = [self._view(name, shard_map, bounds, committed, dead[name]) for name, shard_map in maps.items()]
        views += [_unreadable(name, self._config.stream(name).partitions_max, text) for name, text in problems.items()]
        lacking = sum(metadata.lacking.get(topic, 0) for topic in self._topics_of(maps))
        return Survey(metadata.brokers, lacking, tuple(sorted(views, key=lambda one: one.name)), self._clock() - began)

    def close(self) -> None:
        for one in self._logs.values():
            one.close()
        self._logs.clear()

    def _maps(self, metadata: Metadata) -> tuple[dict[str, ShardMap], dict[str, str]]:
        """Streams that were not created on this cluster are left out."""
        maps: dict[str, ShardMap] = {}
        problems: dict[str, str] = {}
        for name, settings in self._config.streams.items():
            if settings.control_topic not in metadata.partitions:
                continue
            try:
                if name not in self._logs:
                    self._logs[name] = ControlLog(self._config.connection, settings, self._topics)
                maps[name] = self._logs[name].refresh()
            except RetryableError:
                raise
            except StopError as error:
                problems[name] = str(error)
                if name in self._logs:
                    self._logs.pop(name).close()
        return maps, problems

    def _view(
        self, name: str, shard_map: ShardMap, bounds: Bounds, committed: Mapping[str, Mapping[Place, int]], dead: Place
    ) -> StreamView:
        now = self._clock()
        pending = {(name, reshard) for reshard in shard_map.pending}
        for gone in [one for one in self._pending_since if one[0] == name and one not in pending]:
            del self._pending_since[gone]
        since = [self._pending_since.setdefault(one, now) for one in pending]
        low, end = bounds
        shards = shard_map.shards.values()
        return StreamView(
            name,
            {state.value: sum(shard.state is state for shard in shards) for state in ShardState},
            tuple(_shard_view(shard, low, end) for shard in shard_map.leaves),
            len(shard_map.places),
            self._config.stream(name).partitions_max,
            len(pending),
            now - min(since, default=now),
            max(0, end.get(dead, 0) - low.get(dead, 0)),
            {g: lags for g, at in committed.items() if (lags := lag_of(shard_map, at, bounds)) is not None},
        )

    def _topics_of(self, maps: Mapping[str, ShardMap]) -> set[str]:
        topics = {place[0] for one in maps.values() for place in one.places}
        for name in maps:
            settings = self._config.stream(name)
            topics |= {settings.control_topic, settings.dead_topic}
        return topics


def lag_of(shard_map: ShardMap, committed: Mapping[Place, int], bounds: Bounds) -> dict[str, int] | None:
    """Messages that a group has not committed yet, by shard: up to the seal of a sealed one (left out when it is through),
    up to the end of the others. None for a group that never committed anything of the stream."""
    if not any(place in committed for place in shard_map.places):
        return None
    low, end = bounds
    lags: dict[str, int] = {}
    for shard in shard_map.shards.values():
        if shard.place not in end:
            continue
        upto = end[shard.place] if shard.seal is None else shard.seal
        begins = _begins(shard_map, shard)
        lag = max(0, upto - max(committed.get(shard.place, 0), low[shard.place], begins))
        if lag or shard.seal is None:
            lags[shard.id] = lag
    return lags


def _begins(shard_map: ShardMap, shard: Shard) -> int:
    """A child may stay in its parent's partition: it begins behind the parent's seal."""
    older = (one for one in shard_map.at_place(shard.place) if one.generation < shard.generation)
    return max((one.seal + 1 for one in older if one.seal is not None), default=0)


def _shard_view(shard: Shard, low: Mapping[Place, int], end: Mapping[Place, int]) -> ShardView:
    messages = max(0, end.get(shard.place, 0) - low.get(shard.place, 0))
    return ShardView(shard.id, shard.place, (shard.high - shard.low) / HASH_SPACE, shard.generation, shard.state.value, messages)


def _unreadable(name: str, partitions_max: int, problem: str) -> StreamView:
    return StreamView(name, {}, (), 0, partitions_max, 0, 0.0, 0, {}, problem)
