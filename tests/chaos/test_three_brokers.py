"""Three brokers: a frozen leader of the control topic, then of a data partition, during reshards (issue 4, part 7).

This is the case that a plain end-offset read fails: a deposed leader that wakes answers with an old end offset.
"""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import TopicCollection
from confluent_kafka.admin import AdminClient

from pipeline import Config, Consumer, Producer, load_config, reshard
from pipeline.errors import ReshardRefusedError, RetryableError
from pipeline.kafka import settings
from pipeline.local import stack as local
from pipeline.model.shards import ShardMap, ShardState
from pipeline.reshard.control_log import ControlLog
from tests.order import first_difference

STREAM = "orders"
KEYS = 20


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Config]:
    folder = tmp_path_factory.mktemp("three")
    home = folder / "home"
    schema = {
        "type": "record",
        "name": "Order",
        "fields": [{"name": "number", "type": "int"}],
    }
    (folder / "order.avsc").write_text(json.dumps(schema))
    file = folder / "headrace.yml"
    file.write_text(f"streams:\n  {STREAM}: {{schema: order.avsc, shards: 2}}\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HEADRACE_HOME", str(home))
        local.up(home, brokers=3)
        try:
            yield load_config(file)
        finally:
            local.down(home)


def leader_pid(config: Config, topic: str, partition: int) -> int:
    """The process of the broker that leads a partition now."""
    admin = AdminClient({"bootstrap.servers": config.connection.bootstrap})
    described = admin.describe_topics(TopicCollection([topic]))[topic].result(20)
    leader = described.partitions[partition].leader.id
    state: dict[str, Any] = json.loads((Path(os.environ["HEADRACE_HOME"]) / "stack.json").read_text())
    return next(int(p["pid"]) for p in state["processes"] if p["name"] == f"kafka-{leader}")


class Load:
    """A producer and a consumer, and what each of them saw."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.put: dict[str, list[int]] = {}
        self.handled: dict[str, list[int]] = {}
        self.receipts: list[Any] = []
        self.errors: list[BaseException] = []
        self._done = threading.Event()
        self._all_put = threading.Event()
        self._threads = [threading.Thread(target=self._guard, args=(work,)) for work in (self._produce, self._consume)]
        for thread in self._threads:
            thread.start()

    def wait_until_it_flows(self) -> None:
        deadline = time.monotonic() + 60
        while not self.handled:
            assert time.monotonic() < deadline
            assert not self.errors, self.errors
            time.sleep(0.1)

    def finish(self) -> None:
        self._done.set()
        for thread in self._threads:
            thread.join(120)
            assert not thread.is_alive()
        assert not self.errors, self.errors

    def _guard(self, work: Any) -> None:
        try:
            work()
        except BaseException as error:  # noqa: BLE001 - told by finish, in the test's own thread
            self.errors.append(error)
        finally:
            if work == self._produce:
                self._all_put.set()

    def _produce(self) -> None:
        with Producer(STREAM, config=self.config, linger_ms=5, buffer_records_max=20_000) as producer:
            number = 0
            while not self._done.is_set():
                key = f"k{number % KEYS}"
                self.put.setdefault(key, []).append(number)
                self.receipts.append(producer.put({"number": number}, key=key))
                number += 1
                time.sleep(0.002)
            producer.flush(90)

    def _consume(self) -> None:
        deadline: float | None = None
        with Consumer(STREAM, group="g", config=self.config, commit_interval_s=0.5) as consumer:
            handled: set[int] = set()  # a group that lost its coordinator reads some records again: they count once
            while not self._all_put.is_set() or len(handled) < len(self.receipts):
                if self._all_put.is_set():
                    deadline = deadline or time.monotonic() + 90
                    assert time.monotonic() < deadline, self._missing(handled, consumer)
                try:
                    for record in consumer.read(0.5):
                        self.handled.setdefault(record.key, []).append(record.value["number"])
                        handled.add(record.value["number"])
                except RetryableError:
                    continue

    def _missing(self, handled: set[int], consumer: Consumer) -> str:
        numbers = [number for number in range(len(self.receipts)) if number not in handled]
        places = sorted({(r.shard, r.offset) for r in (self.receipts[number].result(0) for number in numbers[:100])}, key=str)
        return f"{len(numbers)} of {len(self.receipts)} records are missing, the first at {places[:5]}: {consumer.problems()}"


def split_some_shard(config: Config) -> None:
    """Split until one succeeds: brokers are frozen meanwhile, and a call may time out."""
    deadline = time.monotonic() + 90
    while True:
        try:
            with ControlLog(config.connection, config.stream(STREAM)) as control:
                shard = next(leaf for leaf in control.barrier().leaves if leaf.state is ShardState.OPEN)
            reshard.split(STREAM, shard.id, config=config)
            return
        except (RetryableError, ReshardRefusedError, StopIteration):
            assert time.monotonic() < deadline, "no reshard succeeded"
            time.sleep(0.5)


def first_handlings(numbers: list[int]) -> list[int]:
    return list(dict.fromkeys(numbers))


class Sleeper:
    """A producer's view of the control log whose client does not hear of new leaders. It asks the frozen one, which answers
    once it wakes and may not have heard either: with the end that it knows. A barrier has to show what was committed before it
    began all the same."""

    def __init__(self, config: Config) -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(settings, "METADATA_REFRESH_MS", 600_000)
            self._control = ControlLog(config.connection, config.stream(STREAM))
        self._control.barrier()
        self._thread = ThreadPoolExecutor(1)

    def ask(self) -> Future[ShardMap]:
        return self._thread.submit(self._control.barrier, 120)

    def close(self) -> None:
        self._thread.shutdown()
        self._control.close()


@pytest.mark.timeout(400)
def test_nothing_is_lost_or_reordered_while_leaders_are_frozen_during_reshards(cluster: Config) -> None:
    with Producer(STREAM, config=cluster):
        pass
    load = Load(cluster)
    load.wait_until_it_flows()
    sleeper = Sleeper(cluster)
    for topic in (f"{STREAM}.control", STREAM):
        pid = leader_pid(cluster, topic, 0)
        os.kill(pid, signal.SIGSTOP)
        try:
            split_some_shard(cluster)
            committed = len(open_map(cluster).leaves)
            asked = sleeper.ask()
        finally:
            os.kill(pid, signal.SIGCONT)
        assert len(asked.result(150).leaves) >= committed
        split_some_shard(cluster)
    load.finish()
    sleeper.close()
    assert all(receipt.result(0) for receipt in load.receipts)
    assert first_difference({key: first_handlings(numbers) for key, numbers in load.handled.items()}, load.put) is None
    with ControlLog(cluster.connection, cluster.stream(STREAM)) as control:
        assert control.replication == 3
        assert len(control.map.leaves) == 6


def open_map(config: Config) -> ShardMap:
    with ControlLog(config.connection, config.stream(STREAM)) as control:
        return control.barrier()
