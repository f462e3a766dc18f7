"""One Kafka process: its configuration, the formatting of its data folder, and how it is started.

All paths in the files written here are relative to the home, which is the process's working folder: a property file, a list
of log folders and a log4j address each have characters that a path must not hold.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

from pipeline.errors import StackError
from pipeline.local import ports
from pipeline.local.java import Java
from pipeline.local.paths import Home
from pipeline.local.plan import Node, Plan, formatted_as
from pipeline.local.processes import Running, marks, spawn

_HEAP_ONE = "-Xmx512m"
_HEAP_EACH_OF_THREE = "-Xmx384m"
_FORMAT_TIMEOUT_S = 60
# A broker that crashed may register anew only when its old session has ended, so `up` waits that long after a kill -9. Alone, it
# shares its controller's process, and no network or pause can part the two; three keep Kafka's own 9 s.
_SESSION_ALONE_MS = 4_000
_YEAR_MINUTES = 366 * 24 * 60


def start_broker(home: Home, plan: Plan, node: Node, java: Java, jars: Sequence[Path]) -> Running:
    """Write the node's files, format its data folder where that was never done, start it. Does not wait until it is ready."""
    config = _config(node)
    log4j = f"config/{node.name}.log4j2.xml"
    (home.root / config).write_text(_properties(plan, node), encoding="latin-1")
    (home.root / log4j).write_text(_LOG4J.format(name=node.name), encoding="utf-8")
    environment = {"CLASSPATH": os.pathsep.join(str(jar) for jar in jars)}
    if formatted_as(home, node) is None:
        _format(home, plan, node, java, environment)
    command = [
        str(java.executable),
        *marks(home, node.name),
        _HEAP_ONE if len(plan.nodes) == 1 else _HEAP_EACH_OF_THREE,
        "-XX:+ExitOnOutOfMemoryError",
        f"-XX:ErrorFile=logs/{node.name}.crash",
        "-Djava.awt.headless=true",
        f"-Dlog4j2.configurationFile={log4j}",
        "kafka.Kafka",
        config,
    ]
    return spawn(home, node.name, command, environment=environment, output=home.logs / f"{node.name}.out")


def _config(node: Node) -> str:
    return f"config/{node.name}.properties"


def _format(home: Home, plan: Plan, node: Node, java: Java, environment: dict[str, str]) -> None:
    # --ignore-formatted: an `up` that died between the two files that this writes is completed by the next.
    command = [str(java.executable), *marks(home, f"format-{node.name}"), "kafka.tools.StorageTool", "format"]
    options = ["--ignore-formatted", "--cluster-id", plan.cluster_id, "--config", _config(node)]
    try:
        done = subprocess.run(
            command + options,
            cwd=home.root,
            env={**os.environ, **environment},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_FORMAT_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise StackError(
            f"formatting {home.root / node.data} took over {_FORMAT_TIMEOUT_S} s: try again when the machine is less busy"
        ) from error
    if done.returncode != 0 or formatted_as(home, node) != plan.cluster_id:
        said = (done.stderr.strip() or done.stdout.strip() or f"exit code {done.returncode}").splitlines()[-1]
        raise StackError(
            f"Kafka could not format {home.root / node.data} ({said}): move that folder away, or free its disk, and start again"
        )


def _properties(plan: Plan, node: Node) -> str:
    """The broker's settings; those not named here are Kafka's own."""
    replicas = len(plan.nodes)
    in_sync = 2 if replicas > 1 else 1
    settings: dict[str, str | int] = {
        "process.roles": "broker,controller",
        "node.id": node.node_id,
        "controller.quorum.voters": ",".join(f"{one.node_id}@{ports.HOST}:{one.controller_port}" for one in plan.nodes),
        "listeners": f"PLAINTEXT://{node.address},CONTROLLER://{ports.HOST}:{node.controller_port}",
        "advertised.listeners": f"PLAINTEXT://{node.address}",
        "controller.listener.names": "CONTROLLER",
        "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
        "log.dirs": node.data,
        "auto.create.topics.enable": "false",
        "unclean.leader.election.enable": "false",
        "num.partitions": 1,
        "default.replication.factor": replicas,
        "min.insync.replicas": in_sync,
        "offsets.topic.replication.factor": replicas,
        "transaction.state.log.replication.factor": replicas,
        "transaction.state.log.min.isr": in_sync,
        "share.coordinator.state.topic.replication.factor": replicas,
        "share.coordinator.state.topic.min.isr": in_sync,
        # 50 partitions each by default: seconds of the first group's start on a laptop, for nothing.
        "offsets.topic.num.partitions": 4,
        "transaction.state.log.num.partitions": 4,
        "share.coordinator.state.topic.num.partitions": 4,
        "group.initial.rebalance.delay.ms": 0,
        # A killed member's shards go to another in 10 s, not in Kafka's 45; heartbeats in step with that.
        "group.consumer.session.timeout.ms": 10_000,
        "group.consumer.min.session.timeout.ms": 1_000,
        "group.consumer.heartbeat.interval.ms": 1_000,
        "group.consumer.min.heartbeat.interval.ms": 500,
        # A laptop's data stays until somebody deletes it; a group's offsets outlive a holiday.
        "log.retention.ms": -1,
        "log.retention.bytes": -1,
        "offsets.retention.minutes": _YEAR_MINUTES,
        # 128 MiB by default, a quarter of the heap.
        "log.cleaner.dedupe.buffer.size": 32 * 1024 * 1024,
    }
    if replicas == 1:
        settings |= {"broker.session.timeout.ms": _SESSION_ALONE_MS, "broker.heartbeat.interval.ms": _SESSION_ALONE_MS // 4}
    return "".join(f"{key}={value}\n" for key, value in settings.items())


# shutdownHook: log4j's own would close the log before Kafka has written how its shutdown went.
_LOG4J = """<?xml version="1.0" encoding="UTF-8"?>
<Configuration status="ERROR" shutdownHook="disable">
  <Appenders>
    <RollingFile name="file" fileName="logs/{name}.log" filePattern="logs/{name}.log.%i">
      <PatternLayout pattern="%d{{ISO8601}} %p %m (%c)%n"/>
      <SizeBasedTriggeringPolicy size="10 MB"/>
      <DefaultRolloverStrategy max="3"/>
    </RollingFile>
  </Appenders>
  <Loggers>
    <Root level="INFO"><AppenderRef ref="file"/></Root>
  </Loggers>
</Configuration>
"""
