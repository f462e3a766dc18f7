"""What the stack consists of: its cluster id, its brokers and everybody's ports; kept over restarts in cluster.json.

Ports stay the same from one start to the next where they are still free, so that running clients find the stack again.
"""

from __future__ import annotations

import base64
import uuid
from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Any

from pipeline.errors import StackError
from pipeline.local import ports
from pipeline.local.paths import Home, read_json, write_json

BROKERS_ALLOWED = (1, 3)


@dataclass(frozen=True, slots=True)
class Node:
    """One Kafka process, broker and controller in one."""

    node_id: int
    port: int
    controller_port: int
    name: str

    @property
    def data(self) -> str:
        """Its data folder, relative to the home."""
        return f"data/kafka-{self.node_id}"

    @property
    def address(self) -> str:
        return f"{ports.HOST}:{self.port}"


@dataclass(frozen=True, slots=True)
class Plan:
    """The whole stack as it is meant to run."""

    cluster_id: str
    nodes: tuple[Node, ...]
    registry_port: int

    @property
    def bootstrap(self) -> str:
        return ",".join(node.address for node in self.nodes)

    @property
    def ports(self) -> set[int]:
        return {self.registry_port, *(port for node in self.nodes for port in (node.port, node.controller_port))}

    @property
    def registry_url(self) -> str:
        return f"http://{ports.HOST}:{self.registry_port}"

    def with_other_ports(self, taken: Collection[int]) -> Plan:
        """The same stack with another port wherever it has one of ``taken``."""
        used = self.ports

        def keep_or_choose(port: int) -> int:
            if port not in taken:
                return port
            used.add(chosen := ports.choose(used))
            return chosen

        nodes = tuple(
            replace(node, port=keep_or_choose(node.port), controller_port=keep_or_choose(node.controller_port))
            for node in self.nodes
        )
        return replace(self, nodes=nodes, registry_port=keep_or_choose(self.registry_port))


def load_plan(home: Home, brokers: int | None) -> Plan:
    """The plan of this home, or a new one. ``brokers`` None: as many as it has, one at first.

    Raises StackError for a number of brokers that cannot be, or that is not what this home was made with.
    """
    if brokers is not None and brokers not in BROKERS_ALLOWED:
        raise StackError(f"the embedded stack has {' or '.join(map(str, BROKERS_ALLOWED))} brokers, not {brokers}")
    found = _parse(read_json(home.cluster))
    identities = _formatted(home)
    if len(set(identities.values())) > 1:
        raise StackError(f"{home.data} holds the data of several clusters: move what is not this stack's away, then start again")
    if found is None:
        # cluster.json lost or damaged: the data folders say who they are.
        recovered = next(iter(identities.values()), None)
        found = _new_plan(brokers or (3 if len(identities) > 1 else 1), recovered or _new_cluster_id())
    for folder, identity in identities.items():
        if identity != found.cluster_id:
            raise StackError(
                f"{home.data / folder} holds the data of cluster {identity}, but this stack is {found.cluster_id}: "
                "move that folder away, or set HEADRACE_HOME to another folder"
            )
    if brokers is not None and brokers != len(found.nodes):
        raise StackError(
            f"the stack in {home.root} was made with {len(found.nodes)} broker(s), not {brokers}: "
            "start it without --brokers, or set HEADRACE_HOME to another folder"
        )
    return found


def save_plan(home: Home, plan: Plan) -> None:
    """Raises OSError."""
    content = {
        "cluster_id": plan.cluster_id,
        "brokers": [{"node_id": node.node_id, "port": node.port, "controller_port": node.controller_port} for node in plan.nodes],
        "registry_port": plan.registry_port,
    }
    if read_json(home.cluster) != content:
        write_json(home.cluster, content)


def formatted_as(home: Home, node: Node) -> str | None:
    """The cluster id in a node's data folder; None while it is not formatted."""
    try:
        lines = (home.root / node.data / "meta.properties").read_text(encoding="latin-1").splitlines()
    except OSError:
        return None
    return next((line.partition("=")[2].strip() for line in lines if line.startswith("cluster.id=")), None)


def _formatted(home: Home) -> dict[str, str]:
    """Data folder -> cluster id, of those that are formatted."""
    found = {number: formatted_as(home, Node(number, 0, 0, "")) for number in range(1, max(BROKERS_ALLOWED) + 1)}
    return {f"kafka-{number}": identity for number, identity in found.items() if identity is not None}


def _new_cluster_id() -> str:
    """As Kafka makes its own: 16 random bytes in base64; one may not start with a dash, which reads as an option."""
    while (made := base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")).startswith("-"):
        pass
    return made


def _new_plan(brokers: int, identity: str) -> Plan:
    used: set[int] = set()
    for _ in range(2 * brokers + 1):
        used.add(ports.choose(used))
    free = iter(sorted(used))
    nodes = tuple(_node(number, brokers, next(free), next(free)) for number in range(1, brokers + 1))
    return Plan(identity, nodes, next(free))


def _node(number: int, brokers: int, port: int, controller_port: int) -> Node:
    return Node(number, port, controller_port, "kafka" if brokers == 1 else f"kafka-{number}")


def _parse(content: Any) -> Plan | None:
    try:
        entries = content["brokers"]
        nodes = tuple(
            _node(int(entry["node_id"]), len(entries), int(entry["port"]), int(entry["controller_port"])) for entry in entries
        )
        plan = Plan(str(content["cluster_id"]), nodes, int(content["registry_port"]))
    except (KeyError, TypeError, ValueError):
        return None
    return plan if len(nodes) in BROKERS_ALLOWED else None
