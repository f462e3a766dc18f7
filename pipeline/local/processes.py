"""Starts, finds and ends the processes of one stack, and never touches another's.

A process is ours when its command line carries this home and its name; the record under run/ (pid and start time) only says
which one we started last. So a pid that the system has given to a stranger is not signalled, and a process whose record was
lost (``up`` killed between start and record, or the folder deleted) is still found.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from pipeline.local.paths import Home, read_json, write_json

_HOME_MARK = "-Dheadrace.home="
_NAME_MARK = "-Dheadrace.name="
# Start times come from the kernel in ticks since boot, and the boot time itself is rounded.
_START_TOLERANCE_S = 2.0

# Children started by this very process; polled, or they would stay zombies for as long as the caller lives.
_children: dict[int, subprocess.Popen[bytes]] = {}


@dataclass(frozen=True, slots=True)
class Running:
    """One process of the stack. ``started_at`` is its start as the system tells it, in seconds since the epoch."""

    name: str
    pid: int
    started_at: float

    def as_json(self) -> dict[str, Any]:
        return {"name": self.name, "pid": self.pid, "started_at": self.started_at}


def marks(home: Home, name: str) -> list[str]:
    """What every command line of the stack carries; a JVM takes it as properties."""
    return [f"{_HOME_MARK}{home.root}", f"{_NAME_MARK}{name}"]


def spawn(home: Home, name: str, command: Sequence[str], *, environment: Mapping[str, str], output: Path) -> Running:
    """Start ``command`` (which must carry ``marks``) in the home's folder, detached from this terminal; record its pid.

    ``output`` takes what it prints, from empty. Raises OSError.
    """
    with output.open("wb") as file:
        child = subprocess.Popen(
            list(command),
            cwd=home.root,
            env={**os.environ, **environment},
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    _children[child.pid] = child
    try:
        started_at = psutil.Process(child.pid).create_time()
    except psutil.Error:
        started_at = time.time()  # gone already; whoever waits for it will say so
    running = Running(name, child.pid, started_at)
    write_json(_record(home, name), running.as_json())
    return running


def recorded(home: Home, name: str) -> Running | None:
    """The process that run/ names, if it is alive and really ours."""
    content = read_json(_record(home, name))
    if not isinstance(content, dict):
        return None
    try:
        running = Running(name, int(content["pid"]), float(content["started_at"]))
    except (KeyError, TypeError, ValueError):
        return None
    return running if is_alive(running) and _named(home, running.pid) == name else None


def is_alive(running: Running) -> bool:
    """True while that very process runs: same pid *and* same start, not a zombie."""
    child = _children.get(running.pid)
    if child is not None and child.poll() is not None:
        del _children[running.pid]
        return False
    try:
        process = psutil.Process(running.pid)
        return abs(process.create_time() - running.started_at) <= _START_TOLERANCE_S and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def find_all(home: Home) -> list[Running]:
    """Every living process of this home, recorded or not."""
    found = []
    for process in psutil.process_iter(["pid", "cmdline", "create_time"]):
        name = _name_in(home, process.info["cmdline"] or ())
        if name is not None:
            running = Running(name, process.info["pid"], process.info["create_time"])
            if is_alive(running):
                found.append(running)
    return sorted(found, key=lambda one: (one.name, one.pid))


def command_line(running: Running) -> list[str]:
    """Its arguments; [] when it is gone."""
    try:
        return psutil.Process(running.pid).cmdline()
    except psutil.Error:
        return []


def stop(home: Home, processes: Iterable[Running], *, grace_s: float) -> list[Running]:
    """End them: SIGTERM to all, ``grace_s`` to finish, then SIGKILL. Returns those that had to be killed.

    Records of what ended are removed.
    """
    alive = [one for one in processes if is_alive(one)]
    for one in alive:
        _signal(one, signal.SIGTERM)
        _signal(one, signal.SIGCONT)  # a frozen process handles SIGTERM only once it runs again
    killed = _wait(alive, grace_s)
    for one in killed:
        _signal(one, signal.SIGKILL)
    _wait(killed, grace_s)
    for one in alive:
        record = _record(home, one.name)
        content = read_json(record)
        if not is_alive(one) and isinstance(content, dict) and content.get("pid") == one.pid:
            record.unlink(missing_ok=True)
    return killed


def _wait(processes: Sequence[Running], timeout_s: float) -> list[Running]:
    deadline = time.monotonic() + timeout_s
    alive = [one for one in processes if is_alive(one)]
    while alive and time.monotonic() < deadline:
        time.sleep(0.02)
        alive = [one for one in alive if is_alive(one)]
    return alive


def _signal(running: Running, number: int) -> None:
    if is_alive(running):
        with contextlib.suppress(psutil.NoSuchProcess):
            psutil.Process(running.pid).send_signal(number)


def _record(home: Home, name: str) -> Path:
    return home.run / f"{name}.json"


def _named(home: Home, pid: int) -> str | None:
    try:
        return _name_in(home, psutil.Process(pid).cmdline())
    except psutil.Error:
        return None


def _name_in(home: Home, command: Sequence[str]) -> str | None:
    if f"{_HOME_MARK}{home.root}" not in command:
        return None
    return next((argument.removeprefix(_NAME_MARK) for argument in command if argument.startswith(_NAME_MARK)), None)
