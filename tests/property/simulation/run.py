"""One schedule from one seed."""

from __future__ import annotations

import random
from contextlib import ExitStack
from dataclasses import replace
from unittest.mock import patch

from tests.property.simulation.checker import Violation
from tests.property.simulation.producers import ProducerProcess
from tests.property.simulation.readers import Group
from tests.property.simulation.resharders import Resharder
from tests.property.simulation.rules import Rules
from tests.property.simulation.world import Plan, World

PRODUCERS = ("a", "b", "c")
ACTORS = ("producer", "network", "resharder", "coordinator", "reader")
QUIET_ROUNDS_MAX = 3_000


class Schedule:
    """Actors of one world, and who comes next."""

    def __init__(self, seed: int, rules: Rules, *, tell: bool = False) -> None:
        rng = random.Random(seed)
        self.world = World(rng, replace(Plan.from_seed(rng), **rules.focus), rules)
        self.world.tell = tell
        self.group = Group(self.world)
        self.processes = [ProducerProcess(self.world, name) for name in PRODUCERS]
        self.resharders: list[Resharder] = []
        self.reshards_left = self.world.plan.reshards

    def run(self) -> None:
        world = self.world
        for now in range(world.plan.steps):
            world.now = now
            self._step()
        world.quiet = True
        world.network.hurry()
        world.control.deposed_end = None
        world.say("quiet")
        for _ in range(QUIET_ROUNDS_MAX):
            world.now += 1
            self._round()
            if self._is_over():
                break
        else:
            raise Violation(f"stuck: {self._what_is_left()}")
        stamps = {
            (place, offset): (message.stamp or b"")[2 : 2 + (message.stamp or b"  ")[1] // 2].decode()
            for place, log in world.logs.items()
            for offset, message in enumerate(log)
        }
        world.checker.finish(world.control.events, stamps)
        missing = world.checker.keys.keys() - world.checker.acknowledged
        if missing:
            raise Violation(f"stuck: {sorted(missing)[:3]} were put and never acknowledged")

    def _step(self) -> None:
        world, rng, plan = self.world, self.world.rng, self.world.plan
        self._faults()
        may_start = self.reshards_left and len(self.resharders) < plan.resharders_at_once
        if may_start and rng.random() < 6 * plan.reshards / plan.steps:
            self.reshards_left -= 1
            self.resharders.append(Resharder(world))
        who = rng.choices(ACTORS, plan.speeds)[0]
        if who == "producer":
            rng.choice(self.processes).step()
        elif who == "network":
            world.network.step(world.now)
        elif who == "coordinator":
            self.group.step()
        elif who == "reader":
            rng.choice(self.group.readers).step()
        elif self.resharders:
            self._resharder_step(rng.choice(self.resharders))

    def _faults(self) -> None:
        world, plan = self.world, self.world.plan
        if world.chance(plan.p_process_crashes):
            name = world.rng.choice(PRODUCERS)
            for process in self.processes:
                if process.name == name:
                    process.crash()
            self._start(name)
        control = world.control
        if control.deposed_end is not None and world.rng.random() < 0.01:
            control.deposed_end = None
        elif plan.replicated and world.chance(plan.p_leader_freezes):
            control.deposed_end = control.end
            world.say("the control log's leader freezes")
        if world.chance(plan.p_second_process):
            self._start(world.rng.choice(PRODUCERS))

    def _start(self, name: str) -> None:
        self.processes = [process for process in self.processes if not process.over]
        self.processes.append(ProducerProcess(self.world, name))

    def _resharder_step(self, resharder: Resharder) -> None:
        resharder.step()
        if resharder.done:
            self.resharders.remove(resharder)

    def _round(self) -> None:
        for process in self.processes:
            process.step()
        for resharder in list(self.resharders):
            self._resharder_step(resharder)
        self.group.step()
        for reader in self.group.readers:
            reader.step()
        for _ in range(4):
            self.world.network.step(self.world.now)

    def _is_over(self) -> bool:
        return (
            self.world.network.idle
            and not self.resharders
            and not self.world.control.newest.pending
            and all(process.done for process in self.processes)
            and all(reader.drained() for reader in self.group.readers)
        )

    def _what_is_left(self) -> str:
        return (
            f"network idle {self.world.network.idle}, pending {list(self.world.control.newest.pending)}, "
            f"producers done {[process.done for process in self.processes]}, "
            f"readers drained {[reader.drained() for reader in self.group.readers]}"
        )


def simulate(seed: int, rules: Rules | None = None, *, tell: bool = False) -> Schedule:
    """Run the schedule of a seed. Raises Violation, or what the product's own invariants raise."""
    rules = rules or Rules()
    with ExitStack() as stack:
        for target, name, replacement in rules.patches():
            stack.enter_context(patch.object(target, name, replacement))
        schedule = Schedule(seed, rules, tell=tell)
        try:
            schedule.run()
        except Exception as error:
            error.schedule = schedule  # type: ignore[attr-defined]
            raise
    return schedule
