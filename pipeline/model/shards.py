"""The shard map: which shard owns which hash keys, and how each came to be (DESIGN.md §3).

Everybody who takes part in a stream replays its control topic through ``ShardMap.apply``, event by event, and so arrives
at the same map. Invariants, checked by property tests:

- the *leaves* (open or sealing shards) cover [0, HASH_SPACE) exactly once;
- an event that is not valid at its place changes nothing but the position;
- the map depends on the events alone: no clock, no order of arrival, no broker.

An event of an unknown type stops the replay: a version that ignored it would diverge from one that does not.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Any

from pipeline.errors import ControlLogError, UpgradeRequiredError
from pipeline.model.keys import HASH_NAME, HASH_SPACE
from pipeline.model.salting import SALTS_MAX, Salted

CREATED, PREPARE, COMMIT, ABORT, CLAIM, PING = "CREATED", "PREPARE", "COMMIT", "ABORT", "CLAIM", "PING"
SALT = "SALT"  # only in streams whose ordering is salted: others stay readable for versions that do not know it
SALTED_KEYS_MAX = 1_000
SALTED_KEY_CHARACTERS_MAX = 1_000
Place = tuple[str, int]
"""(topic, partition): where a shard is written."""


class ShardState(Enum):
    OPEN = "open"
    SEALING = "sealing"  # a reshard is prepared: nobody writes, the outcome is not known yet
    SEALED = "sealed"


@dataclass(frozen=True, slots=True)
class Shard:
    """Hash keys [low, high), written to one partition. ``seal`` is the offset of its END marker once sealed: records
    stamped with this shard at or above it are void."""

    id: str
    low: int
    high: int
    topic: str
    partition: int
    generation: int = 0
    parents: tuple[str, ...] = ()
    children: tuple[str, ...] = ()
    state: ShardState = ShardState.OPEN
    seal: int | None = None

    @property
    def place(self) -> Place:
        return self.topic, self.partition

    def holds(self, hash_key: int) -> bool:
        return self.low <= hash_key < self.high

    def is_void(self, offset: int) -> bool:
        """Whether a record stamped with this shard at ``offset`` is outside the stream."""
        return self.seal is not None and offset >= self.seal


@dataclass(frozen=True, slots=True)
class Reshard:
    """A prepared reshard whose outcome is not in the log yet. ``scan_from`` gives, by parent, an end offset read before
    PREPARE: the END marker stands at or after it. ``offset`` is PREPARE's own place in the control log."""

    id: str
    parents: tuple[str, ...]
    children: tuple[Shard, ...]
    scan_from: Mapping[str, int]
    offset: int


@dataclass(frozen=True, slots=True)
class Claim:
    """The newest start of a named producer; ``token`` tells two processes apart that claimed at once."""

    incarnation: int
    token: str


@dataclass(frozen=True)
class ShardMap:
    """One stream as its control log tells it up to ``position`` (the next offset to read). A value: ``apply`` returns a
    new map."""

    position: int = 0
    created: bool = False
    subject: str = ""
    ordering: str = "strict"
    shards: Mapping[str, Shard] = field(default_factory=dict)
    pending: Mapping[str, Reshard] = field(default_factory=dict)
    finished: frozenset[str] = frozenset()
    claims: Mapping[str, Claim] = field(default_factory=dict)
    salts: Mapping[str, Salted] = field(default_factory=dict)
    topic_ids: Mapping[str, str] = field(default_factory=dict)
    ignored: int = 0
    _lows: tuple[int, ...] = ()
    _leaves: tuple[Shard, ...] = ()
    _places: frozenset[Place] = frozenset()

    # -- reading -----------------------------------------------------------------------------------------------------

    @property
    def leaves(self) -> tuple[Shard, ...]:
        """Open and sealing shards, by hash key: where new records go."""
        return self._leaves

    def route(self, hash_key: int) -> Shard:
        """The leaf that owns a hash key in [0, HASH_SPACE)."""
        return self._leaves[bisect_right(self._lows, hash_key) - 1]

    def ancestors(self, shard_id: str) -> set[str]:
        """Every shard before this one, at any depth, itself not included."""
        seen: set[str] = set()
        todo = list(self.shards[shard_id].parents)
        while todo:
            parent = todo.pop()
            if parent not in seen:
                seen.add(parent)
                todo.extend(self.shards[parent].parents)
        return seen

    def in_lineage_order(self) -> list[Shard]:
        """Parents before children; by id inside a generation."""
        return sorted(self.shards.values(), key=lambda shard: (shard.generation, shard.id))

    def at_place(self, place: Place) -> list[Shard]:
        """The shards written to one partition, oldest first: more than one where a child stayed in its parent's place."""
        return [shard for shard in self.in_lineage_order() if shard.place == place]

    @property
    def places(self) -> frozenset[Place]:
        """Every partition that a shard was ever written to."""
        return self._places

    # -- replay ------------------------------------------------------------------------------------------------------

    def apply(self, event: Mapping[str, Any] | None, offset: int) -> ShardMap:
        """The map after the event at ``offset`` of the control log; ``None`` stands for bytes that are no event.

        Raises UpgradeRequiredError on an event type that this version does not know, ControlLogError if ``offset`` is
        before the map's position.
        """
        if offset < self.position:
            raise ControlLogError(f"control event at offset {offset} was already applied (position {self.position})")
        after = replace(self, position=offset + 1)
        if event is None or not isinstance(event.get("type"), str):
            return replace(after, ignored=self.ignored + 1)
        step = _STEPS.get(event["type"])
        if step is None:
            raise UpgradeRequiredError(
                f"the control log has an event {event['type']!r} at offset {offset} that this version does not know: "
                "upgrade headrace on this machine before going on"
            )
        try:
            changed = step(after, event, offset)
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError):  # JSON holds lists for objects, and 1e999
            changed = None
        return replace(after, ignored=self.ignored + 1) if changed is None else changed

    def at_least(self, position: int) -> ShardMap:
        """The same map known to hold up to ``position``: what lay between was compacted away."""
        return self if position <= self.position else replace(self, position=position)

    def _with_shards(self, changed: Mapping[str, Shard], **changes: Any) -> ShardMap:
        """With these shards added or replaced. The rest is not looked at: a log of hundreds of reshards is replayed at every
        start."""
        leaves = [leaf for leaf in self._leaves if leaf.id not in changed]
        leaves += [shard for shard in changed.values() if shard.state is not ShardState.SEALED]
        leaves.sort(key=lambda shard: shard.low)
        return replace(
            self,
            shards={**self.shards, **changed},
            _leaves=tuple(leaves),
            _lows=tuple(leaf.low for leaf in leaves),
            _places=self._places.union(shard.place for shard in changed.values()),
            **changes,
        )


def _created(shard_map: ShardMap, event: Mapping[str, Any], offset: int) -> ShardMap | None:
    if shard_map.created or event["hash"] != HASH_NAME or event["ordering"] not in ("strict", "salted"):
        return None
    shards = [_shard(data) for data in event["shards"]]
    if not _covers(shards, 0, HASH_SPACE) or not _distinct(shards):
        return None
    return shard_map._with_shards(
        {shard.id: shard for shard in shards},
        created=True,
        subject=str(event["subject"]),
        ordering=event["ordering"],
        topic_ids={str(topic): str(id_) for topic, id_ in event.get("topic_ids", {}).items()},
    )


def _prepare(shard_map: ShardMap, event: Mapping[str, Any], offset: int) -> ShardMap | None:
    reshard = str(event["reshard"])
    parents = [shard_map.shards[parent] for parent in event["parents"]]
    if not parents or len({p.id for p in parents}) != len(parents) or any(p.state is not ShardState.OPEN for p in parents):
        return None
    if reshard in shard_map.pending or reshard in shard_map.finished:
        return None
    children = [_shard(data, 1 + max(p.generation for p in parents), tuple(p.id for p in parents)) for data in event["children"]]
    low, high = min(p.low for p in parents), max(p.high for p in parents)
    if not _covers(parents, low, high) or not _covers(children, low, high) or not _distinct(children):
        return None
    reserved = [child for pending in shard_map.pending.values() for child in pending.children]
    if {c.id for c in children} & (shard_map.shards.keys() | {c.id for c in reserved}):
        return None
    used = shard_map.places | {c.place for c in reserved}
    stays = {parents[0].place} if len(parents) == 1 else set()
    if any(c.place in used - stays for c in children):
        return None
    scan_from = {p.id: int(event["scan_from"][p.id]) for p in parents}
    pending = Reshard(reshard, tuple(p.id for p in parents), tuple(children), scan_from, offset)
    sealing = {p.id: replace(p, state=ShardState.SEALING) for p in parents}
    return shard_map._with_shards(sealing, pending=dict(shard_map.pending) | {reshard: pending})


def _commit(shard_map: ShardMap, event: Mapping[str, Any], offset: int) -> ShardMap | None:
    reshard = shard_map.pending.get(str(event["reshard"]))
    if reshard is None or set(event["seals"]) != set(reshard.parents):
        return None
    seals = {parent: int(event["seals"][parent]) for parent in reshard.parents}
    if any(seals[parent] < reshard.scan_from[parent] for parent in reshard.parents):
        return None
    child_ids = tuple(child.id for child in reshard.children)
    changed = {
        parent: replace(shard_map.shards[parent], state=ShardState.SEALED, seal=seal, children=child_ids)
        for parent, seal in seals.items()
    }
    changed |= {child.id: child for child in reshard.children}
    return shard_map._with_shards(changed, **_finished(shard_map, reshard))


def _abort(shard_map: ShardMap, event: Mapping[str, Any], offset: int) -> ShardMap | None:
    reshard = shard_map.pending.get(str(event["reshard"]))
    if reshard is None:
        return None
    reopened = {parent: replace(shard_map.shards[parent], state=ShardState.OPEN) for parent in reshard.parents}
    return shard_map._with_shards(reopened, **_finished(shard_map, reshard))


def _claim(shard_map: ShardMap, event: Mapping[str, Any], offset: int) -> ShardMap | None:
    producer, incarnation = str(event["producer"]), int(event["incarnation"])
    current = shard_map.claims.get(producer)
    if incarnation != (current.incarnation if current else 0) + 1:
        return None
    claim = Claim(incarnation, str(event["token"]))
    return replace(shard_map, claims=dict(shard_map.claims) | {producer: claim})


def _salt(shard_map: ShardMap, event: Mapping[str, Any], offset: int) -> ShardMap | None:
    key, count, producer = event["key"], event["count"], event["producer"]
    if shard_map.ordering != "salted" or not isinstance(key, str) or not isinstance(producer, str) or type(count) is not int:
        return None
    if not 1 <= count <= SALTS_MAX or len(key) > SALTED_KEY_CHARACTERS_MAX:
        return None
    current = shard_map.salts.get(key)
    if count < (current.count if current else 1) and current is not None and current.producer != producer:
        return None  # a key that is hot for one producer may be cold for another
    salts = {other: salted for other, salted in shard_map.salts.items() if other != key}
    if count > 1:
        if len(salts) >= SALTED_KEYS_MAX:
            return None
        salts[key] = Salted(count, producer)
    return replace(shard_map, salts=salts)


def _ping(shard_map: ShardMap, event: Mapping[str, Any], offset: int) -> ShardMap | None:
    return shard_map


_STEPS = {CREATED: _created, PREPARE: _prepare, COMMIT: _commit, ABORT: _abort, CLAIM: _claim, PING: _ping, SALT: _salt}


def _finished(shard_map: ShardMap, reshard: Reshard) -> dict[str, Any]:
    return {
        "pending": {k: v for k, v in shard_map.pending.items() if k != reshard.id},
        "finished": shard_map.finished | {reshard.id},
    }


def _shard(data: Mapping[str, Any], generation: int = 0, parents: tuple[str, ...] = ()) -> Shard:
    partition = data["partition"]
    if not isinstance(data["id"], str) or not data["id"] or not isinstance(partition, int) or partition < 0:
        raise ValueError("not a shard")
    return Shard(data["id"], int(data["low"]), int(data["high"]), str(data["topic"]), partition, generation, parents)


def _covers(shards: Iterable[Shard], low: int, high: int) -> bool:
    """Whether the ranges, put in order, lead from low to high without gap or overlap, none of them empty."""
    at = low
    for shard in sorted(shards, key=lambda s: s.low):
        if shard.low != at or shard.high <= shard.low:
            return False
        at = shard.high
    return at == high


def _distinct(shards: list[Shard]) -> bool:
    return len({s.id for s in shards}) == len(shards) == len({s.place for s in shards})


def shard_event(shard: Shard) -> dict[str, Any]:
    """A shard as events carry it. Hash keys are decimal strings: JSON numbers end at 2**53 in most readers."""
    return {"id": shard.id, "low": str(shard.low), "high": str(shard.high), "topic": shard.topic, "partition": shard.partition}
