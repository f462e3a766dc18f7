"""Starts what is missing of a stack and waits until it works; the caller holds the home's lock and cleans up on any error."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from pipeline.errors import BrokerUnavailableError, StackError
from pipeline.kafka.cluster import describe
from pipeline.local import ports
from pipeline.local.broker import start_broker
from pipeline.local.java import Java
from pipeline.local.paths import Home
from pipeline.local.plan import Node, Plan, save_plan
from pipeline.local.processes import Running, find_all, is_alive, stop
from pipeline.local.service import REGISTRY, registry_answers, start_registry

STOP_GRACE_S = 20.0
_UNFIT_GRACE_S = 5.0  # for a process that hangs or was left over; killing it loses nothing that was acknowledged
_BROKERS_READY_S = 90.0
_REGISTRY_READY_S = 60.0
_POLL_S = 0.05

Say = Callable[[str], None]


class PortTakenError(Exception):
    """Somebody else got a port between our choice and our start; choose others and start again."""

    def __init__(self, taken: set[int]) -> None:
        super().__init__(taken)
        self.taken = taken


def start_missing(
    home: Home, plan: Plan, healthy: dict[str, Running], java: Java, jars: Sequence[Path], say: Say
) -> tuple[Plan, tuple[Running, ...], tuple[str, ...]]:
    """Bring the stack to ``plan``, keeping what is ``healthy``; every other process of this home is ended first.

    Returns the plan as it runs (ports that others hold were replaced), all its processes, and the names of those started.
    Raises StackError, PortTakenError, OSError.
    """
    kept = {one.pid for one in healthy.values()}
    stop(home, [one for one in find_all(home) if one.pid not in kept], grace_s=_UNFIT_GRACE_S)
    taken = _taken(plan, healthy)
    if taken:
        say(f"{_ports_in_words(taken)} taken by another process; using other ports")
        if taken - {plan.registry_port}:
            # Every broker and the registry know the brokers' addresses, so all of them start anew.
            stop(home, healthy.values(), grace_s=STOP_GRACE_S)
            healthy = {}
        plan = plan.with_other_ports(taken)
    save_plan(home, plan)
    started: list[str] = []
    missing = [node for node in plan.nodes if node.name not in healthy]
    if missing:
        say("starting Kafka" if len(missing) == 1 else f"starting {len(missing)} Kafka brokers")
        healthy |= _start_brokers(home, plan, missing, java, jars)
        started += [node.name for node in missing]
    if REGISTRY not in healthy:
        say("starting the schema registry")
        healthy[REGISTRY] = _start_registry(home, plan)
        started.append(REGISTRY)
    names = [*(node.name for node in plan.nodes), REGISTRY]
    return plan, tuple(healthy[name] for name in names), tuple(started)


def _taken(plan: Plan, healthy: dict[str, Running]) -> set[int]:
    needed = {port for node in plan.nodes if node.name not in healthy for port in (node.port, node.controller_port)}
    if REGISTRY not in healthy:
        needed.add(plan.registry_port)
    return {port for port in needed if not ports.is_free(port)}


def _ports_in_words(taken: set[int]) -> str:
    listed = ", ".join(str(port) for port in sorted(taken))
    return f"port {listed} is" if len(taken) == 1 else f"ports {listed} are"


def _start_brokers(home: Home, plan: Plan, nodes: Sequence[Node], java: Java, jars: Sequence[Path]) -> dict[str, Running]:
    logged = {node: _size(home.logs / f"{node.name}.log") for node in nodes}
    running = {node: start_broker(home, plan, node, java, jars) for node in nodes}
    waiting = set(nodes)
    deadline = time.monotonic() + _BROKERS_READY_S
    while waiting:
        for node in sorted(waiting, key=lambda one: one.node_id):
            if not is_alive(running[node]):
                _raise_for_dead(node.name, {node.port, node.controller_port}, home, logged[node])
            if _is_ready(plan, node):
                waiting.discard(node)
        if waiting and time.monotonic() > deadline:
            names = ", ".join(sorted(node.name for node in waiting))
            raise StackError(
                f"{names} was not ready within {_BROKERS_READY_S:g} s: see {home.logs}, then run `headrace up` again"
            )
        time.sleep(_POLL_S if waiting else 0)
    return {node.name: one for node, one in running.items()}


def _is_ready(plan: Plan, node: Node) -> bool:
    if not ports.answers(node.port):
        return False
    try:
        cluster = describe(node.address, 5.0)
    except BrokerUnavailableError:
        return False
    if cluster.cluster_id != plan.cluster_id:
        raise PortTakenError({node.port})
    return node.node_id in cluster.brokers


def _start_registry(home: Home, plan: Plan) -> Running:
    logged = _size(home.logs / f"{REGISTRY}.log")
    running = start_registry(home, plan)
    deadline = time.monotonic() + _REGISTRY_READY_S
    while not registry_answers(plan, running):
        if not is_alive(running):
            _raise_for_dead(REGISTRY, {plan.registry_port}, home, logged)
        if time.monotonic() > deadline:
            raise StackError(
                f"the registry did not answer within {_REGISTRY_READY_S:g} s: see {home.logs}, then run `headrace up` again"
            )
        time.sleep(_POLL_S)
    return running


def _raise_for_dead(name: str, its_ports: set[int], home: Home, logged_bytes: int) -> None:
    """The process ended while it started: another holds its port now, or its log says why."""
    taken = {port for port in its_ports if not ports.is_free(port)}
    if taken:
        raise PortTakenError(taken)
    log = home.logs / f"{name}.log"
    raise StackError(f"{name} ended while starting ({_last_words(log, logged_bytes)}): see {log}, then run `headrace up` again")


def _last_words(log: Path, logged_bytes: int) -> str:
    """The most telling line of what the process wrote since it was started."""
    lines: list[str] = []
    for path, offset in ((log, logged_bytes), (log.with_suffix(".out"), 0)):
        try:
            with path.open("rb") as file:
                file.seek(offset if path.stat().st_size >= offset else 0)
                lines += file.read(1_000_000).decode("utf-8", "replace").splitlines()
        except OSError:
            continue
    lines = [_plain(line.strip()) for line in lines if line.strip()]
    telling = [line for line in lines if " ERROR " in line or " FATAL " in line or "Error:" in line or "Exception" in line]
    return (telling or lines or ["it left no message"])[-1][:300]


def _plain(line: str) -> str:
    """The registry logs events as JSON."""
    try:
        event = json.loads(line)
        return f"{event['timestamp']} {str(event['level']).upper()} {event['event']} {event.get('exception', '')}".strip()
    except (ValueError, KeyError, TypeError):
        return line


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0
