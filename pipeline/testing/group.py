"""A consumer group in memory: members share out the partitions, revoke before others are given them, commit together."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from pipeline.errors import BrokerUnavailableError, StopError
from pipeline.kafka.group_reader import Committed, Fetched, OutOfRangeError, Then
from pipeline.model.shards import Place


class Logs:
    """The partitions of a stream. Thread-safe; grows with what is put, like a topic without retention."""

    def __init__(self) -> None:
        self.changed = threading.Condition()
        self._messages: dict[Place, list[Fetched]] = {}
        self._first: dict[Place, int] = {}

    def add(self, place: Place) -> None:
        with self.changed:
            self._messages.setdefault(place, [])
            self.changed.notify_all()

    def append(
        self, place: Place, key: bytes | None, value: bytes | None, headers: list[tuple[str, bytes | None]], timestamp_ms: int
    ) -> int:
        with self.changed:
            log = self._messages[place]
            log.append(Fetched(place, len(log), key, value, headers, timestamp_ms))
            self.changed.notify_all()
            return len(log) - 1

    def trim(self, place: Place, first: int) -> None:
        """What retention does."""
        with self.changed:
            self._first[place] = first

    def at(self, place: Place, offset: int) -> Fetched | None:
        with self.changed:
            log = self._messages[place]
            if offset < self._first.get(place, 0) and log:
                raise OutOfRangeError(f"{place[0]}[{place[1]}] no longer has offset {offset}: it was trimmed", place)
            return log[offset] if offset < len(log) else None

    def bounds(self, place: Place) -> tuple[int, int]:
        with self.changed:
            return self._first.get(place, 0), len(self._messages[place])

    def offset_at(self, place: Place, timestamp_ms: int) -> int | None:
        with self.changed:
            first = self._first.get(place, 0)
            return next((m.offset for m in self._messages[place][first:] if m.timestamp_ms >= timestamp_ms), None)

    @property
    def places(self) -> list[Place]:
        with self.changed:
            return sorted(self._messages)


@dataclass(slots=True)
class Group:
    """What the members of a group share, under the logs' lock."""

    logs: Logs
    members: list[MemoryMember] = field(default_factory=list)
    owners: dict[Place, MemoryMember] = field(default_factory=dict)
    committed: dict[Place, Committed] = field(default_factory=dict)

    def wanted(self, member: MemoryMember) -> set[Place]:
        """The partitions that a member should have."""
        return {place for n, place in enumerate(self.logs.places) if self.members[n % len(self.members)] is member}

    def set_positions(self, positions: dict[Place, int]) -> None:
        with self.logs.changed:
            if self.members:
                raise StopError("the group still has members: stop its consumers, then rewind it")
            self.committed |= {place: Committed(offset, "") for place, offset in positions.items()}


class MemoryMember:
    """As ``GroupReader``: callbacks run inside ``poll``, and inside a ``commit``; new partitions are paused until ``start``."""

    def __init__(
        self, group: Group, on_assigned: Callable[[list[Place]], None], on_revoked: Callable[[list[Place], bool], None]
    ) -> None:
        self._group = group
        self._logs = group.logs
        self._on_assigned = on_assigned
        self._on_revoked = on_revoked
        self._positions: dict[Place, int] = {}
        self._owned: set[Place] = set()
        self._paused: set[Place] = set()
        self._in_callback = False
        self._last: Place | None = None

    def subscribe(self, topics: Iterable[str]) -> None:
        with self._logs.changed:
            self._group.members.append(self)
            self._logs.changed.notify_all()

    def poll(self, timeout_s: float) -> Fetched | None:
        deadline = time.monotonic() + timeout_s
        while True:
            self._rebalance()
            found = self._fetch()
            left = deadline - time.monotonic()
            if found is not None or left <= 0:
                return found
            with self._logs.changed:
                self._logs.changed.wait(min(left, 0.02))

    def pause(self, places: Iterable[Place]) -> None:
        self._paused |= set(places)

    def resume(self, places: Iterable[Place]) -> None:
        self._paused -= set(places)

    def seek(self, place: Place, offset: int) -> None:
        self._positions[place] = offset

    def start(self, place: Place, offset: int) -> bool:
        self._positions[place] = offset
        self._paused.discard(place)
        return True

    def committed(self, places: Iterable[Place]) -> dict[Place, Committed]:
        with self._logs.changed:
            return {place: self._group.committed[place] for place in places if place in self._group.committed}

    def commit(self, positions: dict[Place, Committed], then: Then = lambda _: None) -> None:
        with self._logs.changed:
            if self not in self._group.members:
                raise BrokerUnavailableError("this member was thrown out of its group: nothing is committed")
            self._group.committed |= positions
        then(None)
        self._rebalance()

    def bounds(self, place: Place) -> tuple[int, int]:
        return self._logs.bounds(place)

    def known_lag(self, place: Place, offset: int) -> int:
        return max(0, self._logs.bounds(place)[1] - offset)

    def offsets_at(self, places: Iterable[Place], timestamp_ms: int) -> dict[Place, int]:
        found = {place: self._logs.offset_at(place, timestamp_ms) for place in places}
        return {place: self._logs.bounds(place)[1] if offset is None else offset for place, offset in found.items()}

    def close(self) -> None:
        if self._owned:
            self._give_up(self._owned)
        self._leave()

    def crash(self) -> None:
        """Be gone without a word: nothing more is committed, and the partitions go to others."""
        self._leave()

    def _leave(self) -> None:
        with self._logs.changed:
            if self in self._group.members:
                self._group.members.remove(self)
            for place in self._owned:
                self._group.owners.pop(place, None)
            self._owned.clear()
            self._positions.clear()
            self._logs.changed.notify_all()

    def _rebalance(self) -> None:
        with self._logs.changed:
            if self not in self._group.members or self._in_callback:
                return
            wanted = self._group.wanted(self)
            leaving = self._owned - wanted
        if leaving:
            self._give_up(leaving)
        with self._logs.changed:
            for place in leaving:
                self._owned.discard(place)
                self._positions.pop(place, None)
                del self._group.owners[place]
            coming = sorted(place for place in wanted if place not in self._group.owners)
            for place in coming:
                self._group.owners[place] = self
            self._owned |= set(coming)
            self._paused |= set(coming)
        if coming:
            self._on_assigned(coming)

    def _give_up(self, places: Iterable[Place]) -> None:
        self._in_callback = True
        try:
            self._on_revoked(sorted(places), False)
        finally:
            self._in_callback = False

    def _fetch(self) -> Fetched | None:
        """The next message of a partition that is not paused, in turn."""
        ready = sorted(place for place in self._positions if place not in self._paused)
        if self._last is not None:
            ready = [place for place in ready if place > self._last] + [place for place in ready if place <= self._last]
        for place in ready:
            found = self._logs.at(place, self._positions[place])
            if found is not None:
                self._positions[place] += 1
                self._last = place
                return found
        return None
