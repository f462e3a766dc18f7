"""Where the endpoints of running processes are found: one file a process under $HEADRACE_HOME/metrics/, in the format of
Prometheus' file_sd, so that `files: [".headrace/metrics/*.json"]` is all that Prometheus needs.

A file is removed by its process at exit, and by whoever looks when the process is gone (same host, and no such pid, or one
that started at another time).
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

FOLDER = "metrics"
TARGETS_MAX = 10_000
_PID, _STARTED_AT, _HOST = "__headrace_pid", "__headrace_started_at", "__headrace_host"  # Prometheus drops __ labels
_START_TOLERANCE_S = 2.0


@dataclass(frozen=True, slots=True)
class Target:
    """One endpoint. ``role`` says what the process does (producer, consumer, jobs, registry, exporter)."""

    role: str
    pid: int
    started_at: float
    host: str
    address: str

    @property
    def name(self) -> str:
        return self.role if self.role == "registry" else f"{self.role}-{self.pid}"

    @property
    def url(self) -> str:
        return f"http://{self.address}/metrics"

    @property
    def is_gone(self) -> bool:
        """Only of this host can we say."""
        if self.host != socket.gethostname():
            return False
        try:
            process = psutil.Process(self.pid)
            same = abs(process.create_time() - self.started_at) <= _START_TOLERANCE_S
            return not same or process.status() == psutil.STATUS_ZOMBIE
        except psutil.Error:
            return True

    def as_file_sd(self) -> str:
        labels = {
            "job": "headrace",
            "role": self.role,
            _PID: str(self.pid),
            _STARTED_AT: f"{self.started_at:.3f}",
            _HOST: self.host,
        }
        return json.dumps([{"targets": [self.address], "labels": labels}]) + "\n"


def target_of(role: str, pid: int, address: str) -> Target:
    """Raises psutil.Error for a pid that is gone."""
    return Target(role, pid, psutil.Process(pid).create_time(), socket.gethostname(), address)


def add(home: Path, target: Target) -> Path:
    """Write the target's file, whole or not at all. Raises OSError."""
    folder = home / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{target.role}-{target.host}-{target.pid}.json"
    partial = path.with_name(f".{path.name}.partial")  # not matched by *.json
    partial.write_text(target.as_file_sd(), encoding="utf-8")
    partial.replace(path)
    return path


def remove(home: Path, pid: int) -> None:
    """The files of one process of this host."""
    for path in (home / FOLDER).glob(f"*-{socket.gethostname()}-{pid}.json"):
        with contextlib.suppress(OSError):
            path.unlink()


def running(home: Path) -> list[Target]:
    """Every endpoint of living processes, by name. Files of processes that are gone are removed on the way."""
    found = []
    for path in _files(home):
        target = _read(path)
        if target is None or target.is_gone:
            with contextlib.suppress(OSError):
                path.unlink()
        else:
            found.append(target)
    return sorted(found, key=lambda one: (one.role, one.pid))


def _files(home: Path) -> Iterator[Path]:
    with contextlib.suppress(OSError), os.scandir(home / FOLDER) as entries:
        names = sorted(entry.name for entry in entries if entry.name.endswith(".json") and not entry.name.startswith("."))
        yield from (home / FOLDER / name for name in names[:TARGETS_MAX])


def _read(path: Path) -> Target | None:
    try:
        (group,) = json.loads(path.read_text(encoding="utf-8"))
        labels = group["labels"]
        (address,) = group["targets"]
        return Target(str(labels["role"]), int(labels[_PID]), float(labels[_STARTED_AT]), str(labels[_HOST]), str(address))
    except (OSError, ValueError, KeyError, TypeError):
        return None
