"""The schema registry as a process of the stack: how it is started, and whether it answers."""

from __future__ import annotations

import http.client
import os
import sys
from pathlib import Path

import psutil

from pipeline.local import ports
from pipeline.local.paths import Home
from pipeline.local.plan import Plan
from pipeline.local.processes import Running, command_line, marks, spawn

REGISTRY = "registry"
_MODULE = "pipeline.registry"


def start_registry(home: Home, plan: Plan) -> Running:
    """Start it; does not wait until it answers."""
    command = [
        *(sys.executable, "-m", "pipeline.local.child", *marks(home, REGISTRY)),
        *("--log", f"logs/{REGISTRY}.log", "--", _MODULE, *_arguments(plan)),
    ]
    # A checkout that is not installed is found by its path, whatever the working folder.
    code = str(Path(__file__).resolve().parents[2])
    search = os.pathsep.join(filter(None, (code, os.environ.get("PYTHONPATH"))))
    return spawn(home, REGISTRY, command, environment={"PYTHONPATH": search}, output=home.logs / f"{REGISTRY}.out")


def serves(plan: Plan, running: Running) -> bool:
    """True when this process was started for this plan's broker and port (a plan may have got other ports since)."""
    command = command_line(running)
    return command[-len(_arguments(plan)) :] == _arguments(plan)


def registry_answers(plan: Plan, running: Running, timeout_s: float = 2.0) -> bool:
    """True when our registry, and not a stranger on its port, answers with its list of subjects."""
    connection = http.client.HTTPConnection(ports.HOST, plan.registry_port, timeout=timeout_s)  # no proxy on the way
    try:
        connection.request("GET", "/subjects")
        answered = connection.getresponse().status == http.HTTPStatus.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
    return answered and _listens(running, plan.registry_port)


def _listens(running: Running, port: int) -> bool:
    try:
        connections = psutil.Process(running.pid).net_connections(kind="tcp")
    except psutil.NoSuchProcess:
        return False
    except psutil.AccessDenied:  # macOS does not tell; that the process lives has to do
        return True
    return any(one.status == psutil.CONN_LISTEN and one.laddr.port == port for one in connections)


def _arguments(plan: Plan) -> list[str]:
    return ["--bootstrap", plan.bootstrap, "--port", str(plan.registry_port), "--host", ports.HOST]
