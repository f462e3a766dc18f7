"""What of a stack really works: asked of the processes themselves, not read from files."""

from __future__ import annotations

from dataclasses import dataclass, field

from pipeline.errors import BrokerUnavailableError
from pipeline.kafka.cluster import describe
from pipeline.local.paths import Home
from pipeline.local.plan import Node, Plan
from pipeline.local.processes import Running, recorded
from pipeline.local.service import REGISTRY, registry_answers, serves

_ANSWER_TIMEOUT_S = 5.0


@dataclass(frozen=True, slots=True)
class Health:
    """``healthy`` by process name; ``problems`` has one clause for each of the others."""

    healthy: dict[str, Running] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)


def inspect(home: Home, plan: Plan) -> Health:
    """Check every process of the plan. A frozen one costs some seconds; a missing one nothing."""
    health = Health()
    for node in plan.nodes:
        running = recorded(home, node.name)
        problem = f"{node.name} is not running" if running is None else _node_problem(plan, node)
        _add(health, node.name, running, problem)
    running = recorded(home, REGISTRY)
    if running is None:
        problem = "the registry is not running"
    elif not serves(plan, running):
        problem = "the registry runs with other ports"
    elif not registry_answers(plan, running):
        problem = f"the registry runs but does not answer at {plan.registry_url}"
    else:
        problem = None
    _add(health, REGISTRY, running, problem)
    return health


def _add(health: Health, name: str, running: Running | None, problem: str | None) -> None:
    if problem is not None:
        health.problems.append(problem)
    elif running is not None:
        health.healthy[name] = running


def _node_problem(plan: Plan, node: Node) -> str | None:
    try:
        cluster = describe(node.address, _ANSWER_TIMEOUT_S)
    except BrokerUnavailableError:
        return f"{node.name} runs but does not answer at {node.address}"
    if cluster.cluster_id != plan.cluster_id:
        return f"the broker that answers at {node.address} belongs to another cluster ({cluster.cluster_id})"
    if node.node_id not in cluster.brokers:
        return f"{node.name} runs but does not serve its cluster"
    return None
