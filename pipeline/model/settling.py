"""Settling: what a producer may send, what it may acknowledge, and what it must send again (DESIGN.md §3, producer rules).

The pure core of the producer. Its caller packs records into *parcels* (aggregates on their way), hands over what
``take_sendable`` gives, reports each delivery, and passes in shard maps as barriers bring them. Invariants:

- a parcel is acknowledged only after a barrier that began after its delivery, and only below its shard's seal;
- a shard takes records only while it is open and every ancestor, at any depth, is settled here;
- records to send again go out sorted by sequence over all parents, before anything newer of their range;
- nothing is dropped: every record put is in exactly one lane, or waits in ``orphans``, until it is acknowledged.

No clock, no thread, no broker: the same code runs in the simulation.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Protocol

from pipeline.errors import InvariantError
from pipeline.model.shards import ShardMap, ShardState


class Waiting(Protocol):
    """A record taken out of its parcel: it waits to be packed anew."""

    seq: int
    hash_key: int


class Parcel(Protocol):
    """An aggregate on its way. ``records`` takes its records out, in sequence order."""

    shard: str
    first_seq: int

    def records(self) -> Sequence[Any]: ...


Pack = Callable[[str, Sequence[Any]], Iterable[Any]]
"""(shard id, records in sequence order) -> parcels for that shard, in sequence order."""


class Fate(Enum):
    """What a barrier says of a delivered parcel."""

    ACKNOWLEDGE = "acknowledge"
    HOLD = "hold"  # the shard is sealing: the outcome is not known yet
    SEND_AGAIN = "send again"  # void, or possibly void: its records go to the children


def fate(shard_map: ShardMap, shard_id: str, offset: int | None) -> Fate:
    """Rule 2. ``offset`` is None where the broker acknowledged without naming one: enough at an open shard, unknown at a
    sealed one."""
    shard = shard_map.shards[shard_id]
    if shard.state is ShardState.OPEN:
        return Fate.ACKNOWLEDGE
    if shard.state is ShardState.SEALING:
        return Fate.HOLD
    if offset is None or shard.is_void(offset):
        return Fate.SEND_AGAIN
    return Fate.ACKNOWLEDGE


@dataclass(slots=True)
class _Sent:
    """A parcel handed over. ``reported`` is the tick of its delivery report; None while it is under way."""

    parcel: Any
    reported: int | None = None
    offset: int | None = None


@dataclass(slots=True)
class _Lane:
    """One shard's parcels: ``sent`` in the order handed over, ``ready`` behind them."""

    sent: deque[_Sent] = field(default_factory=deque)
    ready: deque[Any] = field(default_factory=deque)


class Settling:
    """See the module. Not thread-safe: its producer holds a lock around every call."""

    def __init__(self, shard_map: ShardMap, pack: Pack) -> None:
        self._map = shard_map
        self._pack = pack
        self._lanes: dict[str, _Lane] = {}
        self._orphans: list[Any] = []
        self._tick = 0
        self.void_records = 0
        self._ancestors: dict[str, set[str]] = {}

    # -- what happens --------------------------------------------------------------------------------------------------

    def enqueue(self, parcel: Any) -> None:
        """A packed parcel waits to be sent to ``parcel.shard``.

        It has to be called for every parcel of a shard before the map that seals the shard is passed in: a parcel that
        comes later may be older than what its children already sent. Raises InvariantError then.
        """
        if self._map.shards[parcel.shard].state is ShardState.SEALED:
            raise InvariantError(f"a parcel for shard {parcel.shard}, which is sealed: pack for its children")
        self._lane(parcel.shard).ready.append(parcel)

    def take_sendable(self, in_flight_max: int, allow: Callable[[Any], bool] = lambda _: True) -> list[Any]:
        """The parcels to hand over now, in order, at most ``in_flight_max`` under way per shard (rules 1 and 3), and of each
        shard only up to the first that ``allow`` holds back."""
        self._place_orphans()
        out: list[Any] = []
        for shard_id, lane in self._lanes.items():
            if lane.ready and self._may_send(shard_id):
                while lane.ready and len(lane.sent) < in_flight_max and allow(lane.ready[0]):
                    parcel = lane.ready.popleft()
                    lane.sent.append(_Sent(parcel))
                    out.append(parcel)
        return out

    def expire(self, is_expired: Callable[[Any], bool], alone: bool) -> tuple[list[Any], list[Any]]:
        """Give up parcels that wait to be sent: the expired ones, and, unless they go ``alone``, all that wait behind the first
        of them in its shard. Returns both."""
        expired: list[Any] = []
        behind: list[Any] = []
        for lane in self._lanes.values():
            kept: deque[Any] = deque()
            blocked = False
            for parcel in lane.ready:
                if is_expired(parcel):
                    expired.append(parcel)
                    blocked = not alone
                elif blocked:
                    behind.append(parcel)
                else:
                    kept.append(parcel)
            lane.ready = kept
        return expired, behind

    def delivered(self, parcel: Any, offset: int | None) -> None:
        """The broker has it. ``offset`` is None if it did not say where."""
        sent = self._find(parcel)
        if sent is not None and sent.reported is None:
            sent.reported, sent.offset = self._tick, offset

    def client_failed(self) -> int:
        """The client is gone (a fatal error): every parcel under way has an unknown outcome and waits to be sent again,
        in sequence order, with the same sequences (rule 4). Returns how many there are."""
        unknown = 0
        for shard_id, lane in self._lanes.items():
            lost = [sent.parcel for sent in lane.sent if sent.reported is None]
            if not lost:
                continue
            passed = [s for s in lane.sent if s.reported is not None and s.parcel.first_seq > lost[0].first_seq]
            if passed:
                raise InvariantError(
                    f"shard {shard_id}: sequence {passed[0].parcel.first_seq} was delivered before "
                    f"{lost[0].first_seq}, whose outcome is unknown: is enable.gapless.guarantee off?"
                )
            lane.sent = deque(sent for sent in lane.sent if sent.reported is not None)
            lane.ready.extendleft(reversed(lost))
            unknown += len(lost)
        self.view(self._map)
        return unknown

    def discard(self, parcel: Any) -> bool:
        """Give one parcel up: the broker refuses it for good. Returns whether it was still under way."""
        lane = self._lanes.get(parcel.shard)
        kept = deque(sent for sent in lane.sent if sent.parcel is not parcel) if lane else deque()
        if lane is None or len(kept) == len(lane.sent):
            return False
        lane.sent = kept
        return True

    # -- barriers ------------------------------------------------------------------------------------------------------

    def begin_barrier(self) -> int:
        """Everything delivered up to now is settled by a barrier that begins now; pass the result to ``settle``."""
        tick = self._tick
        self._tick += 1
        return tick

    def settle(self, shard_map: ShardMap, tick: int) -> list[tuple[Any, int | None]]:
        """The barrier that began at ``tick`` showed ``shard_map``. Returns the parcels to acknowledge, with offsets."""
        self._map = shard_map
        acknowledged: list[tuple[Any, int | None]] = []
        for shard_id in list(self._lanes):
            lane = self._lanes[shard_id]
            held: deque[_Sent] = deque()
            for sent in lane.sent:
                if sent.reported is None or sent.reported > tick:
                    held.append(sent)
                    continue
                what = fate(shard_map, shard_id, sent.offset)
                if what is Fate.ACKNOWLEDGE:
                    acknowledged.append((sent.parcel, sent.offset))
                elif what is Fate.HOLD:
                    held.append(sent)
                else:
                    records = sent.parcel.records()
                    self.void_records += len(records)
                    self._orphans.extend(records)
            lane.sent = held
            self._close_if_sealed(shard_id, lane)
        return acknowledged

    def view(self, shard_map: ShardMap) -> None:
        """A newer shard map without a barrier: it may stop sending or free what waits, and acknowledges nothing."""
        self._map = shard_map
        for shard_id in list(self._lanes):
            self._close_if_sealed(shard_id, self._lanes[shard_id])

    # -- what there is -------------------------------------------------------------------------------------------------

    @property
    def shard_map(self) -> ShardMap:
        return self._map

    @property
    def orphans(self) -> Sequence[Any]:
        """Records taken back from sealed shards, waiting for the children's other parents."""
        return self._orphans

    @property
    def idle(self) -> bool:
        """Whether everything enqueued was acknowledged."""
        return not self._orphans and not any(lane.sent or lane.ready for lane in self._lanes.values())

    @property
    def has_ready(self) -> bool:
        """Whether something waits to be sent; ``take_sendable`` tells whether it may be."""
        return bool(self._orphans) or any(lane.ready for lane in self._lanes.values())

    @property
    def waits_for_barrier(self) -> bool:
        """Whether a delivered parcel waits to be settled."""
        return any(sent.reported is not None for lane in self._lanes.values() for sent in lane.sent)

    @property
    def under_way(self) -> int:
        """Parcels handed over whose delivery was not reported."""
        return sum(sent.reported is None for lane in self._lanes.values() for sent in lane.sent)

    def lowest_seq(self) -> int | None:
        """The lowest sequence not yet acknowledged; None if there is none."""
        lows = [record.seq for record in self._orphans]
        for lane in self._lanes.values():
            lows.extend(sent.parcel.first_seq for sent in lane.sent)
            lows.extend(parcel.first_seq for parcel in lane.ready)
        return min(lows, default=None)

    def drain(self) -> list[Any]:
        """Give everything up: all parcels that were not acknowledged; orphans are packed under their former leaves."""
        parcels = [sent.parcel for lane in self._lanes.values() for sent in lane.sent]
        parcels.extend(parcel for lane in self._lanes.values() for parcel in lane.ready)
        by_leaf: dict[str, list[Any]] = {}
        for record in sorted(self._orphans, key=_seq):
            by_leaf.setdefault(self._map.route(record.hash_key).id, []).append(record)
        for leaf, records in by_leaf.items():
            parcels.extend(self._pack(leaf, records))
        self._lanes.clear()
        self._orphans.clear()
        return parcels

    # -- inside --------------------------------------------------------------------------------------------------------

    def _lane(self, shard_id: str) -> _Lane:
        lane = self._lanes.get(shard_id)
        if lane is None:
            lane = self._lanes[shard_id] = _Lane()
        return lane

    def _find(self, parcel: Any) -> _Sent | None:
        lane = self._lanes.get(parcel.shard)
        return next((sent for sent in lane.sent if sent.parcel is parcel), None) if lane else None

    def _may_send(self, shard_id: str) -> bool:
        shard = self._map.shards.get(shard_id)
        if shard is None or shard.state is not ShardState.OPEN:
            return False
        lineage = self._lineage(shard_id)
        return not any(other in lineage and (lane.sent or lane.ready) for other, lane in self._lanes.items())

    def _lineage(self, shard_id: str) -> set[str]:
        found = self._ancestors.get(shard_id)
        if found is None:
            found = self._ancestors[shard_id] = self._map.ancestors(shard_id)
        return found

    def _close_if_sealed(self, shard_id: str, lane: _Lane) -> None:
        """What waits for a sealed shard belongs to its children; what is under way there has to be reported first."""
        shard = self._map.shards.get(shard_id)
        if shard is None or shard.state is not ShardState.SEALED:
            return
        while lane.ready:
            self._orphans.extend(lane.ready.popleft().records())
        if not lane.sent:
            del self._lanes[shard_id]

    def _place_orphans(self) -> None:
        """Pack orphans for every leaf that may send: sorted by sequence over all parents, before anything newer."""
        if not self._orphans:
            return
        placed: dict[str, list[Any]] = {}
        waiting: list[Any] = []
        for record in self._orphans:
            leaf = self._map.route(record.hash_key).id
            if self._may_send(leaf):
                placed.setdefault(leaf, []).append(record)
            else:
                waiting.append(record)
        self._orphans = waiting
        for leaf, records in placed.items():
            parcels = list(self._pack(leaf, sorted(records, key=_seq)))
            self._lane(leaf).ready.extendleft(reversed(parcels))


def _seq(record: Any) -> int:
    return int(record.seq)
