"""The embedded stack as a whole: ``up``, ``down``, ``status``.

Either all of it runs or nothing: an ``up`` that fails ends what it started and says why. One command at a time works on a
home (a file lock that the system frees when its holder dies). stack.json is there only while the stack is up.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from pipeline.errors import StackError
from pipeline.local import jars, ports
from pipeline.local.health import inspect
from pipeline.local.java import find_java
from pipeline.local.paths import Home, read_json, write_json
from pipeline.local.plan import Plan, load_plan
from pipeline.local.processes import Running, find_all, is_alive, stop
from pipeline.local.service import REGISTRY
from pipeline.local.startup import STOP_GRACE_S, PortTakenError, Say, start_missing
from pipeline.observe import targets

_OTHER_COMMAND_TIMEOUT_S = 300
_PORT_ATTEMPTS = 3
_DOWN_HINT = "run `headrace up`"


@dataclass(frozen=True, slots=True)
class Stack:
    """A stack that is up. ``bootstrap`` is "HOST:PORT" (with three brokers, three of them, comma separated)."""

    home: Path
    bootstrap: str
    cluster_id: str
    registry_url: str
    metrics: dict[str, str]
    processes: tuple[Running, ...]

    def as_json(self) -> dict[str, Any]:
        """What ``headrace status --json`` prints."""
        return {
            "kafka": {"bootstrap": self.bootstrap, "cluster_id": self.cluster_id},
            "registry": {"url": self.registry_url},
            "metrics": dict(self.metrics),
        }


@dataclass(frozen=True, slots=True)
class Up:
    """What ``up`` did: ``started`` names the processes it started; none if the stack was up ``already``."""

    stack: Stack
    started: tuple[str, ...]

    @property
    def already(self) -> bool:
        return not self.started


@dataclass(frozen=True, slots=True)
class Down:
    """What ``down`` ended. ``killed`` are those that did not end by themselves in time (nothing acknowledged is lost)."""

    stopped: tuple[str, ...]
    killed: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Status:
    """``stack`` is None while it is not up, and ``problem`` then is one sentence that says what to do. ``metrics`` are the
    endpoints of everything that runs, by name: the stack's own, and those of producers, consumers and jobs."""

    stack: Stack | None
    problem: str | None
    metrics: dict[str, str]


def up(home: str | Path | None = None, *, brokers: int | None = None, say: Say = lambda _: None) -> Up:
    """Start the stack in ``home`` (default: $HEADRACE_HOME, else ``.headrace``), or repair it; fine when it is up.

    ``brokers`` (1 or 3) counts at the first start and is kept. Downloads jars when the cache lacks them. ``say`` gets
    progress as short clauses. Raises StackError; a start that failed has then ended every process of the stack.
    """
    place = Home.find(home)
    place.prepare()
    found = _running(place, brokers)
    if found is not None:
        return Up(found, ())
    java = find_java()
    broker_jars = jars.ensure("broker")
    with _only_one(place, say):
        try:
            plan = load_plan(place, brokers)
            health = inspect(place, plan)
            if not health.problems and _is_state(place):  # whoever held the lock has started it
                return Up(_stack(place, plan, _ordered(plan, health.healthy)), ())
            place.state.unlink(missing_ok=True)
            for _ in range(_PORT_ATTEMPTS):
                try:
                    plan, processes, started = start_missing(place, plan, health.healthy, java, broker_jars, say)
                    break
                except PortTakenError as error:
                    plan = plan.with_other_ports(error.taken)
                    health = inspect(place, plan)
            else:
                raise StackError(f"other programs took the chosen ports {_PORT_ATTEMPTS} times over: run `headrace up` again")
            stack = _stack(place, plan, processes)
            write_json(place.state, {**stack.as_json(), "processes": [one.as_json() for one in processes]})
            _announce_registry(place, plan, processes)
        except BaseException as error:
            _end_all(place)
            if isinstance(error, OSError):
                raise StackError(
                    f"the stack could not be started in {place.root} ({error}): see to space and rights there, then try again"
                ) from error
            raise
    return Up(stack, started)


def down(home: str | Path | None = None, *, say: Say = lambda _: None) -> Down:
    """End every process of the stack in ``home``; data stays, and ``up`` finds it again. Fine when nothing runs.

    The registry first, then the brokers together. Raises StackError when a process could not be ended.
    """
    place = Home.find(home)
    if not place.root.is_dir() and not find_all(place):
        return Down((), ())
    place.prepare()
    with _only_one(place, say):
        place.state.unlink(missing_ok=True)
        return _end_all(place)


def status(home: str | Path | None = None) -> Status:
    """Whether the stack in ``home`` works, asked of its processes. Changes nothing. Raises StackError for a damaged home."""
    place = Home.find(home)
    endpoints = {one.name: one.url for one in targets.running(place.root)}
    if not _is_state(place):
        left = sorted(one.name for one in find_all(place))
        if left:
            half = f"is starting or was left half-started (there is {', '.join(left)})"
            return Status(None, f"the stack in {place.root} {half}: {_DOWN_HINT}", endpoints)
        return Status(None, f"the stack in {place.root} is not up: {_DOWN_HINT}", endpoints)
    plan = load_plan(place, None)
    health = inspect(place, plan)
    if health.problems:
        problem = f"the stack in {place.root} is not whole, {'; '.join(health.problems)}: {_DOWN_HINT} to repair it"
        return Status(None, problem, endpoints)
    found = _stack(place, plan, _ordered(plan, health.healthy))
    found = replace(found, metrics=found.metrics | endpoints)
    return Status(found, None, found.metrics)


def _running(home: Home, brokers: int | None) -> Stack | None:
    """The stack if it is up and whole."""
    plan = load_plan(home, brokers)
    if not _is_state(home):
        return None
    health = inspect(home, plan)
    return None if health.problems else _stack(home, plan, _ordered(plan, health.healthy))


def _is_state(home: Home) -> bool:
    return isinstance(read_json(home.state), dict)


def _ordered(plan: Plan, healthy: dict[str, Running]) -> tuple[Running, ...]:
    return tuple(healthy[name] for name in [*(node.name for node in plan.nodes), REGISTRY])


def _stack(home: Home, plan: Plan, processes: tuple[Running, ...]) -> Stack:
    return Stack(
        home=home.root,
        bootstrap=plan.bootstrap,
        cluster_id=plan.cluster_id,
        registry_url=plan.registry_url,
        metrics={REGISTRY: f"{plan.registry_url}/metrics"},
        processes=processes,
    )


def _announce_registry(home: Home, plan: Plan, processes: tuple[Running, ...]) -> None:
    """Prometheus finds it where it finds everything else."""
    for one in processes:
        if one.name == REGISTRY:
            host = socket.gethostname()
            targets.add(home.root, targets.Target(REGISTRY, one.pid, one.started_at, host, f"{ports.HOST}:{plan.registry_port}"))


def _end_all(home: Home) -> Down:
    processes = find_all(home)
    registry = [one for one in processes if one.name == REGISTRY]
    others = [one for one in processes if one.name != REGISTRY]
    killed = stop(home, registry, grace_s=STOP_GRACE_S / 2) + stop(home, others, grace_s=STOP_GRACE_S)
    left = [one for one in processes if is_alive(one)]
    if left:
        listed = ", ".join(f"{one.name} (pid {one.pid})" for one in left)
        raise StackError(f"{listed} did not end, not even when killed: end it by hand, then run `headrace down` again")
    targets.running(home.root)
    return Down(tuple(one.name for one in processes), tuple(one.name for one in killed))


@contextmanager
def _only_one(home: Home, say: Say) -> Iterator[None]:
    lock = FileLock(home.lock)
    try:
        try:
            lock.acquire(timeout=0)
        except Timeout:
            say("another headrace command works on this stack; waiting for it")
            lock.acquire(timeout=_OTHER_COMMAND_TIMEOUT_S)
    except Timeout as error:
        raise StackError(
            f"another headrace command has held {home.lock} for {_OTHER_COMMAND_TIMEOUT_S} s: end it, then try again"
        ) from error
    except OSError as error:
        raise StackError(
            f"cannot lock {home.lock}: {error.strerror or error}; point HEADRACE_HOME to a local folder that can be written"
        ) from error
    try:
        yield
    finally:
        lock.release()
