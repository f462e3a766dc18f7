"""Kills and freezes of everything, while shards are split and merged (issue 4's chaos).

HEADRACE_CHAOS_SEED replays a schedule of blows (what the processes make of them is theirs), HEADRACE_CHAOS_SECONDS sets how
long; `make chaos SEED=… MINUTES=…`.
"""

from __future__ import annotations

import importlib.util
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import psutil
import pytest
import yaml

HERE = Path(__file__).parent
SECONDS = float(os.environ.get("HEADRACE_CHAOS_SECONDS", "60"))
SEED = int(os.environ.get("HEADRACE_CHAOS_SEED", random.SystemRandom().randrange(10**6)))
PRODUCERS, CONSUMERS = 4, 3
KINDS = {"p": "produce", "c": "consume", "r": "reshard"}
FREEZE_S = 12.0  # longer than the group's session time-out
SETTLE_S = 150.0
START_S = 120.0


def _load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"chaos_{name}", HERE / f"{name}.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


checker = _load("checker")


@dataclass
class Arena:
    """The processes of one run, and blows at them."""

    config: Path
    stream: str
    folder: Path
    home: Path
    workers: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    thaw_at: dict[int, float] = field(default_factory=dict)
    blows: list[str] = field(default_factory=list)

    def start(self, name: str) -> None:
        command = [sys.executable, HERE / "workers" / f"{KINDS[name[0]]}.py", self.config, self.stream, name, self.folder]
        output = (self.folder / f"{name}.out").open("ab")
        self.workers[name] = subprocess.Popen(list(map(str, command)), stdout=output, stderr=output)

    def revive(self) -> None:
        for name, process in self.workers.items():
            if process.poll() is not None:
                self.start(name)

    def wait_for_work(self) -> None:
        """Until every producer was told of acknowledged records, and a consumer handled some."""
        deadline = time.monotonic() + START_S
        producers = {name for name in self.workers if name.startswith("p")}
        while {who for who, _ in checker.read_acknowledged(self.folder)} != producers or not checker.read_handled(self.folder):
            if time.monotonic() > deadline:
                pytest.fail(f"nothing flows after {START_S:g} s:\n" + "\n".join(self.said(name) for name in self.workers))
            self.revive()
            time.sleep(0.1)

    def thaw(self, everything: bool = False) -> None:
        for pid, at in list(self.thaw_at.items()):
            if everything or time.monotonic() >= at:
                del self.thaw_at[pid]
                if psutil.pid_exists(pid):
                    os.kill(pid, signal.SIGCONT)

    def blow(self, choose: random.Random) -> float:
        """One random blow at a worker, or at the broker; returns for how many seconds the broker was started again."""
        began = time.monotonic()
        kind = choose.choice(["kill", "kill", "freeze", "freeze", "freeze broker", "kill broker"])
        name = choose.choice([*sorted(self.workers), "r0", "r0"])  # one resharder stands for as much as three others
        pid = self.workers[name].pid
        if kind == "kill":
            self.blows.append(f"kill {name}")
            self.thaw_at.pop(pid, None)
            self.workers[name].kill()
            self.workers[name].wait()
        elif kind == "freeze" and pid not in self.thaw_at and self.workers[name].poll() is None:
            self.blows.append(f"freeze {name}")
            os.kill(pid, signal.SIGSTOP)
            self.thaw_at[pid] = time.monotonic() + FREEZE_S
        elif kind == "freeze broker":
            self.blows.append(kind)
            os.kill(self.broker(), signal.SIGSTOP)
            time.sleep(choose.choice((choose.uniform(0.5, 3.0), FREEZE_S)))
            os.kill(self.broker(), signal.SIGCONT)
        elif kind == "kill broker":
            self.blows.append(kind)
            psutil.Process(self.broker()).kill()
            subprocess.run([sys.executable, "-m", "pipeline.cli.main", "up"], check=True, capture_output=True, timeout=90)
            return time.monotonic() - began
        return 0.0

    def broker(self) -> int:
        state: dict[str, Any] = json.loads((self.home / "stack.json").read_text())
        return next(int(process["pid"]) for process in state["processes"] if process["name"].startswith("kafka"))

    def end(self, kind: str, timeout_s: float) -> None:
        """SIGTERM to all workers of a kind, and wait for them."""
        ours = {name: process for name, process in self.workers.items() if name.startswith(kind)}
        for process in ours.values():
            process.terminate()
        for name, process in ours.items():
            try:
                process.wait(timeout_s)
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGUSR1)
                time.sleep(1)  # for its stacks to be written
                pytest.fail(f"{name} did not end within {timeout_s:g} s of SIGTERM:\n{self.said(name)}")
            del self.workers[name]

    def reshards(self) -> int:
        """How many the resharders say were committed."""
        return (self.folder / "r0.out").read_text().count("->")

    def said(self, name: str) -> str:
        return (self.folder / f"{name}.out").read_text()[-3000:]


@pytest.fixture
def arena(stack: Any, tmp_path: Path) -> Iterator[Arena]:
    schema = {
        "type": "record",
        "name": "Order",
        "fields": [
            {"name": "item", "type": "string"},
            {"name": "number", "type": "int"},
            {"name": "note", "type": ["null", "string"], "default": None},
        ],
    }
    (tmp_path / "order.avsc").write_text(json.dumps(schema))
    stream = f"chaos-{os.getpid()}"
    config = tmp_path / "headrace.yml"
    options = {"schema": "order.avsc", "shards": 3, "partitions_max": 5000}
    config.write_text(yaml.safe_dump({"profile": "embedded", "streams": {stream: options}}))
    subprocess.run(
        [sys.executable, "-m", "pipeline.cli.main", "--config", str(config), "stream", "create", stream],
        check=True, capture_output=True, timeout=60,
    )
    arena = Arena(config, stream, tmp_path, stack.home)
    yield arena
    arena.thaw(everything=True)
    for process in arena.workers.values():
        process.kill()
        process.wait()


@pytest.mark.timeout(3 * SECONDS + START_S + 2 * SETTLE_S + 120)
def test_order_and_every_record_survive_kills_freezes_splits_and_merges(arena: Arena) -> None:
    print(f"\nHEADRACE_CHAOS_SEED={SEED} HEADRACE_CHAOS_SECONDS={SECONDS:g}")
    choose = random.Random(SEED)
    for name in (*(f"p{n}" for n in range(PRODUCERS)), *(f"c{n}" for n in range(CONSUMERS)), "r0"):
        arena.start(name)
    arena.wait_for_work()
    time_is_up = time.monotonic() + SECONDS
    next_blow = time.monotonic()
    # Blows may leave little time to reshard: until there were some, it goes on for as long again.
    while (now := time.monotonic()) < time_is_up or (arena.reshards() <= 2 and now < time_is_up + SECONDS):
        if now > next_blow:
            time_is_up += arena.blow(choose)
            next_blow = time.monotonic() + choose.uniform(2, 5)
        arena.thaw()
        arena.revive()
        time.sleep(0.1)
    arena.thaw(everything=True)
    arena.revive()
    arena.end("r", 60)
    arena.end("p", 120)
    deadline = time.monotonic() + SETTLE_S
    while checker.missing(arena.folder) and time.monotonic() < deadline:
        arena.revive()
        time.sleep(0.5)
    arena.end("c", 60)
    committed = arena.reshards()
    acknowledged = len(checker.read_acknowledged(arena.folder))
    print(f"{acknowledged} acknowledged, {committed} reshards committed, blows: {', '.join(arena.blows)}")
    found = checker.problems(arena.folder)
    assert not found, "\n".join([f"seed {SEED}", *found[:20], *(arena.said(f"c{n}") for n in range(CONSUMERS))])
    assert acknowledged > 500
    assert committed > 2
