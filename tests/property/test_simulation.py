"""Thousands of random schedules over the project's own cores; and, for each rule of the protocol, the proof that they would
notice if it were gone.

A failure prints its seed. ``HEADRACE_SIM_SEED=12345`` runs that schedule alone and tells its story where it fails;
``HEADRACE_SIM_RUNS`` sets how many run.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator

import pytest

from tests.property.simulation.checker import Checker, Violation
from tests.property.simulation.rules import (
    AnyEnd,
    ChildrenAtOnce,
    MarksInOnePiece,
    NoBarrier,
    NoGate,
    NoHold,
    NoMarks,
    NoOffsetIsEnough,
    NoSendingAgain,
    NoVoid,
    OneMarkAShard,
    PlainEndOffsetRead,
    Rules,
)
from tests.property.simulation.run import Schedule, simulate

SEED = os.environ.get("HEADRACE_SIM_SEED")
RUNS = int(os.environ.get("HEADRACE_SIM_RUNS", "2500"))
FIXED_SEEDS = 500  # the same in every run, so that a change that breaks one is told from luck


def explain(seed: int, rules: Rules | None = None) -> str:
    """The story of a seed that fails."""
    try:
        simulate(seed, rules, tell=True)
    except Exception as error:  # noqa: BLE001 - whatever it is, it is shown
        story = error.schedule.world.story  # type: ignore[attr-defined]
        return "\n".join([*story[-200:], f"{type(error).__name__}: {error}", f"Replay: HEADRACE_SIM_SEED={seed}"])
    return "it does not fail when told: the simulation is not deterministic"


def seeds() -> Iterator[int]:
    if SEED is not None:
        yield int(SEED)
        return
    yield from range(min(FIXED_SEEDS, RUNS))
    fresh = random.Random()
    yield from (fresh.randrange(1 << 40) for _ in range(RUNS - FIXED_SEEDS))


@pytest.mark.timeout(600)
def test_promises_are_kept_when_everything_fails_at_random() -> None:
    for seed in seeds():
        try:
            simulate(seed)
        except Exception:  # noqa: BLE001 - a violation, or an invariant of the product
            pytest.fail(f"seed {seed}\n{explain(seed)}", pytrace=False)


@pytest.mark.parametrize(
    ("rules", "schedules_max", "seen_as"),
    [
        (NoBarrier, 100, {"lost"}),
        (PlainEndOffsetRead, 300, {"lost"}),
        (NoHold, 800, {"lost"}),
        (NoSendingAgain, 100, {"lost"}),
        (NoOffsetIsEnough, 300, {"lost"}),
        (AnyEnd, 600, {"void", "lost", "repeated"}),
        (NoVoid, 100, {"void", "repeated"}),
        (ChildrenAtOnce, 600, {"lost", "out of order"}),
        (OneMarkAShard, 200, {"lost"}),
        (NoGate, 600, {"out of order"}),
        (NoMarks, 100, {"repeated"}),
        (MarksInOnePiece, 2000, {"repeated"}),
    ],
    ids=lambda value: getattr(value, "__name__", " "),
)
def test_a_schedule_breaks_a_promise_when_a_rule_is_taken_away(
    rules: type[Rules], schedules_max: int, seen_as: set[str], record_property: Callable[[str, object], None]
) -> None:
    taken = rules()
    for seed in range(schedules_max):
        try:
            simulate(seed, taken)
        except Violation as violation:
            if str(violation).partition(":")[0] in seen_as:
                record_property("schedules", seed + 1)
                return
        except Exception:  # noqa: BLE001 - the product noticed by itself; the promise is what counts here
            continue
    pytest.fail(f"{schedules_max} schedules without {rules.__name__}'s rule broke no promise: the simulation cannot fail")


def test_a_schedule_is_the_same_when_its_seed_is_the_same() -> None:
    def logs(schedule: Schedule) -> object:
        world = schedule.world
        return world.logs, world.control.events, world.checker.handled_at, world.now

    # Tokens and every choice come from the seed alone.
    for seed in range(5):
        assert logs(simulate(seed)) == logs(simulate(seed, tell=True))


def test_schedules_meet_the_cases_that_matter() -> None:
    """A simulation in which nothing happens proves nothing either."""
    seen: dict[str, int] = {}

    def count(what: str, times: int) -> None:
        seen[what] = seen.get(what, 0) + times

    for seed in range(200):
        world = simulate(seed).world
        shard_map = world.control.newest
        stamped = [(p, o) for p, log in world.logs.items() for o, m in enumerate(log) if m.stamp is not None]
        count("splits", sum(len(s.children) == 2 for s in shard_map.shards.values()))
        count("merges", sum(len(s.parents) == 2 for s in shard_map.shards.values()))
        count("depth of three", max(s.generation for s in shard_map.shards.values()) >= 3)
        count("empty parents", sum(s.seal == 0 for s in shard_map.shards.values()))
        count("stayed in place", sum(len(shard_map.at_place(place)) > 1 for place in shard_map.places))
        count("aborts", sum(event["type"] == "ABORT" for event in world.control.events))
        count("ignored events", shard_map.ignored)
        count("fenced", sum(claim.incarnation > 1 for claim in shard_map.claims.values()))
        used = {at[:2] for ats in world.checker.handled_at.values() for at in ats}
        count("messages not handled (void or repeat)", len(stamped) - len(used))
        count("handled more than once", sum(len(ats) > 1 for ats in world.checker.handled_at.values()))
    assert all(times >= 20 for times in seen.values()), seen


# -- the checker itself ------------------------------------------------------------------------------------------------

PLACE = ("t", 0)


def put_two() -> Checker:
    checker = Checker()
    for seq in (0, 1):
        checker.put("p", 7, seq)
        checker.acknowledge("p", seq)
    return checker


def test_the_checker_sees_a_lost_record() -> None:
    checker = put_two()
    checker.handle("r", (PLACE, 0, 0), "p", 7, 0, fenced=False)
    with pytest.raises(Violation, match="lost: 1 acknowledged"):
        checker.finish([], {(PLACE, 0): "s0"})


def test_the_checker_sees_records_of_a_key_out_of_order() -> None:
    checker = put_two()
    checker.handle("r", (PLACE, 0, 0), "p", 7, 1, fenced=False)
    with pytest.raises(Violation, match="out of order"):
        checker.handle("r", (PLACE, 1, 0), "p", 7, 0, fenced=False)


def test_the_checker_allows_a_repeat_only_when_its_reader_was_lost_before_committing() -> None:
    checker = put_two()
    checker.handle("r", (PLACE, 0, 0), "p", 7, 0, fenced=False)
    checker.handle("r", (PLACE, 1, 0), "p", 7, 1, fenced=False)
    checker.commit("r", PLACE, 1, 0)
    checker.lose("r", PLACE)
    checker.handle("q", (PLACE, 1, 0), "p", 7, 1, fenced=False)
    with pytest.raises(Violation, match="repeated"):
        checker.handle("q", (PLACE, 0, 0), "p", 7, 0, fenced=False)


def test_the_checker_sees_a_void_record_handled() -> None:
    checker = put_two()
    for offset in (0, 1):
        checker.handle("r", (PLACE, offset, 0), "p", 7, offset, fenced=False)
    stamps = {(PLACE, 0): "s0", (PLACE, 1): "s0"}
    aborted = {"type": "ABORT", "reshard": "r1"}
    late = {"type": "COMMIT", "reshard": "r1", "seals": {"s0": 0}}
    checker.finish([aborted, late], stamps)
    with pytest.raises(Violation, match="void"):
        checker.finish([{"type": "COMMIT", "reshard": "r2", "seals": {"s0": 1}}], stamps)
