"""The steps of pipeline/reshard/resharder.py as generators: each ``yield`` is a place where its process may stop for ever."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

from pipeline.model.shards import ABORT, COMMIT, PREPARE, Place, Reshard, Shard, ShardMap, ShardState, shard_event
from tests.property.simulation.world import BOUNDS, TOPIC, Message, World

Steps = Generator[None, None, None]


def append(world: World, event: dict[str, Any], lane: str) -> Steps:
    """Write a control event and wait until it is read back. If the writer dies, it may still land, later."""
    landed: list[bool] = []

    def land() -> None:
        world.control.append(event)
        world.say(f"control {event['type']} {event.get('reshard', '')} {event.get('seals', event.get('parents', ''))}")
        landed.append(True)

    world.network.post(lane, land)
    while not landed:
        yield


def reshard(world: World, lane: str) -> Steps:
    """Split or merge something."""
    rng = world.rng
    shard_map = world.control.newest
    yield
    if shard_map.pending and rng.random() < 0.5:
        yield from finish_pending(world, lane)
        shard_map = world.control.newest
    chosen = _choose(world, shard_map)
    if chosen is None:
        return
    parents, bounds = chosen
    children = _children(world, shard_map, parents, bounds)
    scan_from = {}
    for parent in parents:
        scan_from[parent.id] = len(world.logs[parent.place])
        yield
    name = f"r{world.number()}"
    event = {
        "type": PREPARE,
        "reshard": name,
        "parents": [parent.id for parent in parents],
        "children": [shard_event(child) for child in children],
        "scan_from": scan_from,
    }
    yield from append(world, event, lane)
    pending = world.control.newest.pending.get(name)
    if pending is not None:
        yield from seal_and_commit(world, pending, lane)


def finish_pending(world: World, lane: str) -> Steps:
    """What anybody does who meets a pending reshard."""
    for pending in list(world.control.newest.pending.values()):
        yield from seal_and_commit(world, pending, lane)


def seal_and_commit(world: World, pending: Reshard, lane: str) -> Steps:
    seals: dict[str, int] = {}
    for parent in pending.parents:
        if world.chance(world.plan.p_abort):
            yield from append(world, {"type": ABORT, "reshard": pending.id}, lane)
            return
        place = world.control.newest.shards[parent].place
        start = pending.scan_from[parent]
        found = world.rules.find_end(world.logs[place], parent, pending.id, start)
        yield
        if found is None:
            yield from _write_end(world, place, parent, pending.id, lane)
            found = world.rules.find_end(world.logs[place], parent, pending.id, start)
        assert found is not None
        seals[parent] = found
    yield from append(world, {"type": COMMIT, "reshard": pending.id, "seals": seals}, lane)


def _write_end(world: World, place: Place, shard: str, reshard_id: str, lane: str) -> Steps:
    landed: list[bool] = []

    def land() -> None:
        world.append(place, Message(None, end=(shard, reshard_id)))
        landed.append(True)

    world.network.post(lane, land)
    while not landed:
        yield


def _choose(world: World, shard_map: ShardMap) -> tuple[list[Shard], list[tuple[int, int]]] | None:
    rng = world.rng
    splits: list[tuple[list[Shard], list[tuple[int, int]]]] = []
    merges: list[tuple[list[Shard], list[tuple[int, int]]]] = []
    leaves = shard_map.leaves
    for number, leaf in enumerate(leaves):
        if leaf.state is not ShardState.OPEN:
            continue
        inside = [bound for bound in BOUNDS if leaf.low < bound < leaf.high]
        if inside:
            at = rng.choice(inside)
            splits.append(([leaf], [(leaf.low, at), (at, leaf.high)]))
        if number + 1 < len(leaves) and leaves[number + 1].state is ShardState.OPEN:
            merges.append(([leaf, leaves[number + 1]], [(leaf.low, leaves[number + 1].high)]))
    kinds = [kind for kind in (splits, merges) if kind]
    return rng.choice(rng.choice(kinds)) if kinds else None


def _children(world: World, shard_map: ShardMap, parents: list[Shard], bounds: list[tuple[int, int]]) -> list[Shard]:
    """Two resharders at once choose the same names and places: one of their PREPAREs is not valid."""
    places: list[Place] = [parents[0].place] if len(parents) == 1 and world.rng.random() < 0.7 else []
    partition = 0
    while len(places) < len(bounds):
        place = (TOPIC, partition)
        if place not in shard_map.places and not world.logs.get(place):
            world.logs.setdefault(place, [])
            world.times.setdefault(place, [])
            places.append(place)
        partition += 1
    number = 1 + max(int(shard[1:]) for shard in shard_map.shards)
    return [Shard(f"s{number + i}", low, high, *place) for i, ((low, high), place) in enumerate(zip(bounds, places, strict=True))]


class Resharder:
    """A process that reshards once, and may die at any step."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._lane = f"resharder {world.number()}"
        self._steps = reshard(world, self._lane)
        self._asleep_until = 0
        self.done = False

    def step(self) -> None:
        world = self._world
        if world.now < self._asleep_until and not world.quiet:
            return
        if world.chance(world.plan.p_resharder_sleeps):
            self._asleep_until = world.now + world.rng.choice((20, 60, 150))
            return
        if world.chance(world.plan.p_resharder_dies):
            world.say(f"{self._lane} dies")
            world.network.cut(self._lane, world.now)
            self.done = True
            return
        if next(self._steps, True):
            self.done = True
