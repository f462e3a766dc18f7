"""Spark drivers, their executors and the broker killed at named and at random points while shards are split and merged
(issue 8's "exactly once, shown").

HEADRACE_CHAOS_SEED replays the schedule of blows (when a process meets them is its own affair), HEADRACE_CHAOS_SECONDS sets
how long; `make chaos-tables SEED=… MINUTES=…`. Executors are killed from LONG_S on: a cluster takes its time to start.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pyspark
import pytest
import yaml

from jobs.crash import POINTS, VARIABLE
from pipeline.config import Config, load_config
from pipeline.errors import ReshardRefusedError, RetryableError
from pipeline.local.jars import ensure
from pipeline.local.java import spark_java_home
from pipeline.reshard import Resharder

HERE = Path(__file__).parent
REPOSITORY = HERE.parents[1]
SECONDS = float(os.environ.get("HEADRACE_CHAOS_SECONDS", "20"))
SEED = int(os.environ.get("HEADRACE_CHAOS_SEED", random.SystemRandom().randrange(10**6)))
LONG_S = 200.0
UP_S, MET_S, THROUGH_S = 240.0, 240.0, 600.0  # deadlines: a driver runs, meets its point, is through (seconds on an idle machine)
AFTERWARDS_S = 20.0  # how long one that a blow went past goes on before it is killed
LEAVES_MAX = 6
DEATHS = {"killed", "died there"}
EXECUTOR = "CoarseGrainedExecutorBackend"
QUICK = "-XX:TieredStopAtLevel=1"


HERE_MET = sorted(point for point in POINTS if not point.endswith("_ids"))  # no record of the workers has an explicit id


@dataclass(frozen=True)
class Round:
    """One life of a driver: the blow falls ``after_s`` after it began to run, or where it meets ``point``."""

    blow: str  # point, kill, broker or executor
    mode: str
    after_s: float
    point: str = ""
    kills_producer: bool = False

    def __str__(self) -> str:
        return f"{self.point or self.blow} in {self.mode}{', producer killed' if self.kills_producer else ''}"


def rounds(choose: random.Random) -> Iterator[Round]:
    """Without end; every point comes once before any comes again."""
    points: list[str] = []
    while True:
        blow = choose.choice([*["point"] * 5, "kill", "kill", "broker", *(["executor"] if SECONDS >= LONG_S else [])])
        mode, after_s = choose.choice(["available-now", "500 ms"]), choose.uniform(0, 8)
        producer = choose.random() < 0.3
        if blow != "point":
            yield Round(blow, mode, after_s, kills_producer=producer)
            continue
        points = points or choose.sample(HERE_MET, len(HERE_MET))
        point = points.pop()
        if point.endswith(("table_made", "before_start")):
            yield Round(blow, "available-now", MET_S, point, producer)
        else:
            yield Round(blow, mode, MET_S, f"{point}:{choose.choice((1, 1, 2))}", producer)


@dataclass
class Arena:
    """The processes of one run, and blows at them."""

    config: Path
    stream: str
    folder: Path
    home: Path
    workers: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def start(self, name: str, *command: object, **environment: str) -> subprocess.Popen[bytes]:
        output = (self.folder / f"{name}.out").open("ab")
        self.workers[name] = subprocess.Popen(
            list(map(str, command)), stdout=output, stderr=output, cwd=REPOSITORY,
            env=os.environ | {"PYTHONPATH": str(REPOSITORY)} | environment,
        )
        return self.workers[name]

    def worker(self, name: str, script: str, *arguments: object, **environment: str) -> subprocess.Popen[bytes]:
        return self.start(name, sys.executable, HERE / "workers" / f"{script}.py", self.config, *arguments, **environment)

    def produce(self, name: str) -> None:
        self.worker(name, "produce", self.stream, name, self.folder)

    def revive(self) -> None:
        """A producer may end when its broker is gone for long."""
        for name in ("p0", "p1"):
            if self.workers[name].poll() is not None:
                self.produce(name)

    def drive(self, number: int, one: Round) -> subprocess.Popen[bytes]:
        """A driver of its own for each round; one whose executors are killed has them as processes."""
        name = f"driver-{number}"
        if one.blow != "executor":
            return self.worker(name, "tables", one.mode, **({VARIABLE: one.point} if one.point else {}))
        submit, jars = Path(pyspark.__file__).parent / "bin" / "spark-submit", ":".join(map(str, ensure("spark")))
        settings = {
            "spark.driver.extraClassPath": jars, "spark.executor.extraClassPath": jars, "spark.ui.enabled": "false",
            "spark.driver.host": "127.0.0.1", "spark.driver.memory": "1g",
            "spark.driver.extraJavaOptions": QUICK, "spark.executor.extraJavaOptions": QUICK,
        }  # fmt: skip
        options = [part for key, value in settings.items() for part in ("--conf", f"{key}={value}")]
        environment = {"JAVA_HOME": str(spark_java_home()), "PYSPARK_PYTHON": sys.executable, "SPARK_LOCAL_IP": "127.0.0.1"}
        command = [submit, "--master", "local-cluster[2,1,1024]", *options, REPOSITORY / "jobs" / "run.py"]
        return self.start(name, *command, "--config", self.config, "--mode", one.mode, **environment)

    def restart_broker(self) -> None:
        state: dict[str, Any] = json.loads((self.home / "stack.json").read_text())
        psutil.Process(next(int(one["pid"]) for one in state["processes"] if one["name"].startswith("kafka"))).kill()
        subprocess.run([sys.executable, "-m", "pipeline.cli.main", "up"], check=True, capture_output=True, timeout=180)

    def said(self, name: str) -> str:
        return (self.folder / f"{name}.out").read_text(errors="replace")

    def end(self, name: str, timeout_s: float) -> None:
        self.workers[name].terminate()
        self.workers[name].wait(timeout_s)

    @property
    def settings(self) -> Config:
        return load_config(self.config)

    @property
    def table(self) -> Path:
        return self.folder / "lake" / "bronze" / "orders"


def until(process: subprocess.Popen[bytes], condition: Callable[[], object], seconds: float) -> bool:
    """Whether a condition came true, before the process ended or the time was up."""
    deadline = time.monotonic() + seconds
    while process.poll() is None and time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.05)
    return False


def tree(process: subprocess.Popen[bytes]) -> list[psutil.Process]:
    """Its children before itself: it is the JVM that writes. None of one that is over: its pid may be somebody else's."""
    if process.poll() is not None:
        return []
    try:
        return [*psutil.Process(process.pid).children(recursive=True), psutil.Process(process.pid)]
    except psutil.NoSuchProcess:
        return []


def kill(process: subprocess.Popen[bytes]) -> None:
    for one in tree(process):
        with suppress(psutil.NoSuchProcess):
            one.kill()
    process.wait(60)


def executors(process: subprocess.Popen[bytes]) -> list[psutil.Process]:
    found = []
    for one in tree(process):
        with suppress(psutil.Error):  # gone, or about to go
            found += [one] if EXECUTOR in " ".join(one.cmdline()) else []
    return found


def reshard(arena: Arena, choose: random.Random) -> None:
    """One split or merge. A broker that has just come back may answer late."""
    deadline = time.monotonic() + 120
    while True:
        try:
            with Resharder(arena.settings.connection, arena.settings.stream(arena.stream)) as resharder:
                leaves = resharder.map.leaves
                at = choose.randrange(len(leaves) - 1)
                if len(leaves) >= LEAVES_MAX or (len(leaves) > 2 and choose.random() < 0.5):
                    resharder.merge(leaves[at].id, leaves[at + 1].id)
                else:
                    resharder.split(leaves[at].id)
            return
        except (RetryableError, ReshardRefusedError):
            assert time.monotonic() < deadline
            time.sleep(0.5)


def play(arena: Arena, number: int, one: Round, choose: random.Random) -> str:
    """One life of a driver, until it is dead or through. Returns what became of it."""
    driver, name = arena.drive(number, one), f"driver-{number}"
    if one.kills_producer:
        kill(arena.workers["p0"])
        arena.produce("p0")
    if one.blow == "executor":
        before = len(list(arena.table.glob("_delta_log/*.json")))
        until(driver, lambda: len(list(arena.table.glob("_delta_log/*.json"))) > before, UP_S)
    else:
        until(driver, lambda: "running" in arena.said(name), UP_S)
    reshard(arena, choose)
    until(driver, lambda: False, one.after_s)
    if one.blow == "executor" and driver.poll() is None and (there := executors(driver)):
        there[number % len(there)].kill()
        until(driver, lambda: False, AFTERWARDS_S)
    if one.blow == "broker":
        arena.restart_broker()
        until(driver, lambda: False, AFTERWARDS_S)
    if driver.poll() is None:
        kill(driver)
        return "killed"
    said = arena.said(name)
    if driver.returncode == -signal.SIGKILL and f"killed at crash point {one.point.partition(':')[0]}" in said:
        return "died there"
    if driver.returncode == 0 and one.mode == "available-now":
        return "through"
    if one.blow == "broker" and driver.returncode == 1 and "broker" in said.splitlines()[-1]:
        return "gave up without a broker"
    pytest.fail(f"round {number} ({one}) ended with {driver.returncode}:\n{said[-4000:]}")


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
    (tmp_path / "total.sql").write_text("SELECT count(*) AS n, coalesce(sum(number), 0) AS total FROM silver.orders")
    stream, config = f"crashes-{os.getpid()}", tmp_path / "headrace.yml"
    merge = {"keys": ["item"], "delete_when": "number % 7 = 0"}
    tables = {
        "bronze.orders": {"from": stream},
        "silver.orders": {"from": "bronze.orders", "merge": merge},
        "gold.total": {"from": "silver.orders", "sql": "total.sql", "mode": "refresh"},
    }
    options = {"schema": "order.avsc", "shards": 2, "key": "item", "partitions_max": 5000}
    settings = {"profile": "embedded", "warehouse": "lake", "streams": {stream: options}, "tables": tables}
    config.write_text(yaml.safe_dump(settings))
    create = [sys.executable, "-m", "pipeline.cli.main", "--config", str(config), "stream", "create", stream]
    subprocess.run(create, check=True, capture_output=True, timeout=120)
    arena = Arena(config, stream, tmp_path, stack.home)
    yield arena
    for process in arena.workers.values():
        kill(process)


@pytest.mark.timeout(SECONDS + 1500)
def test_every_record_is_in_the_tables_once_when_drivers_executors_and_brokers_are_killed(
    arena: Arena, table_checker: Any
) -> None:
    print(f"\nHEADRACE_CHAOS_SEED={SEED} HEADRACE_CHAOS_SECONDS={SECONDS:g}")
    schedule, choose = rounds(random.Random(SEED)), random.Random(SEED + 1)
    outcomes: list[str] = []
    arena.produce("p0")
    arena.produce("p1")
    time_is_up = time.monotonic() + SECONDS
    while time.monotonic() < time_is_up or not DEATHS & set(outcomes):
        one = next(schedule)
        arena.revive()
        outcomes.append(play(arena, len(outcomes), one, choose))
        print(f"{one}: {outcomes[-1]}", flush=True)
        found = table_checker.problems_meanwhile(table_checker.read_bronze(arena.table))
        assert not found, "\n".join([f"seed {SEED}, after {one}", *found[:20]])
    arena.revive()
    arena.end("p0", 180)
    arena.end("p1", 180)
    last = arena.worker("last", "tables", "available-now", arena.stream, arena.folder)
    assert last.wait(THROUGH_S) == 0, f"seed {SEED}: the last run or its audit\n{arena.said('last')[-4000:]}"
    acknowledged = {
        (file.stem, int(line)) for file in arena.folder.glob("*.acknowledged") for line in file.read_text().split("\n")[:-1]
    }
    tables = json.loads((arena.folder / "tables.json").read_text())
    found = table_checker.problems(table_checker.read_bronze(arena.table), acknowledged, tables["silver"], tables["gold"])
    print(f"{len(acknowledged)} acknowledged, {len(outcomes)} rounds")
    assert not found, "\n".join([f"seed {SEED}", *found[:20]])
    assert len(acknowledged) > 500


def test_a_seed_gives_the_same_schedule_again_in_which_every_point_comes_before_any_comes_twice() -> None:
    first, again = ([next(schedule) for schedule in [rounds(random.Random(7))] for _ in range(100)] for _ in range(2))
    assert first == again
    points = [one.point.partition(":")[0] for one in first if one.point]
    assert sorted(points[: len(HERE_MET)]) == HERE_MET
    assert {one.blow for one in first} >= {"point", "kill", "broker"}
