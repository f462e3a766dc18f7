"""Topics: making them, describing them, adding partitions. Thread-safe."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from concurrent.futures import TimeoutError as FutureTimeoutError
from dataclasses import dataclass
from typing import Any

from confluent_kafka import KafkaError, KafkaException, TopicCollection
from confluent_kafka.admin import AdminClient, ConfigResource, NewPartitions, NewTopic, ResourceType

from pipeline.config import Connection
from pipeline.errors import BrokerUnavailableError, StreamConflictError, UnknownStreamError
from pipeline.kafka.settings import log
from pipeline.kafka.translate import translate


@dataclass(frozen=True, slots=True)
class Topic:
    """A topic as the cluster describes it. ``id`` differs after it was deleted and created again."""

    name: str
    id: str
    partitions: int
    replication: int


class Topics:
    """Admin calls on one cluster. Raises BrokerUnavailableError when nothing answers in ``timeout_s``, and
    StreamConflictError where the profile names another cluster id than the one that answers."""

    def __init__(self, connection: Connection, timeout_s: float = 15.0) -> None:
        self._connection = connection
        self._timeout_s = timeout_s
        self._admin = AdminClient(connection.kafka_settings() | {"client.id": "headrace", "logger": log})
        self._replication: int | None = None

    def check_cluster(self) -> None:
        """A port may belong to a stranger by now: the cluster's id tells."""
        expected = self._connection.cluster_id
        described = self._wait(self._admin.describe_cluster(request_timeout=self._timeout_s), "reach the cluster")
        self._replication = min(3, len(described.nodes))
        if expected is not None and described.cluster_id != expected:
            raise StreamConflictError(
                f"the broker at {self._connection.bootstrap} belongs to cluster {described.cluster_id}, not {expected}: "
                "something else took the port; run `headrace down`, then `headrace up`"
            )

    @property
    def replication(self) -> int:
        """Copies of a new topic: three where there are three brokers."""
        if self._replication is None:
            self.check_cluster()
        return self._replication or 1

    def describe(self, name: str) -> Topic | None:
        """The topic, or None if there is none."""
        future = self._admin.describe_topics(TopicCollection([name]), request_timeout=self._timeout_s)[name]
        try:
            described = future.result(self._timeout_s + 5)
        except KafkaException as error:
            if error.args[0].code() == KafkaError.UNKNOWN_TOPIC_OR_PART:
                return None
            raise translate(error, f"describe topic {name}", self._connection.bootstrap) from error
        except FutureTimeoutError as error:
            raise self._silent(f"describe topic {name}") from error
        replicas = len(described.partitions[0].replicas) if described.partitions else 1
        return Topic(name, str(described.topic_id), len(described.partitions), replicas)

    def create(self, name: str, partitions: int, settings: Mapping[str, str]) -> bool:
        """Create a topic and wait until the brokers know it. Returns False if it was there already."""
        topic = NewTopic(name, num_partitions=partitions, replication_factor=self.replication, config=dict(settings))
        created = True
        try:
            self._wait(self._admin.create_topics([topic], request_timeout=self._timeout_s)[name], f"create topic {name}")
        except _AlreadyThereError:
            created = False
        self._until_known(name, lambda: self.settings(name))
        return created

    def set_partitions(self, name: str, count: int) -> None:
        """Raise a topic's number of partitions to ``count``; nothing happens where it has as many already."""
        future = self._admin.create_partitions([NewPartitions(name, count)], request_timeout=self._timeout_s)[name]
        try:
            self._wait(future, f"add partitions to {name}")
        except _AlreadyThereError:
            return

    def settings(self, name: str) -> dict[str, str]:
        """The topic's settings, defaults included."""
        resource = ConfigResource(ResourceType.TOPIC, name)
        found = self._wait(self._admin.describe_configs([resource])[resource], f"read the settings of {name}")
        return {key: entry.value for key, entry in found.items() if entry.value is not None}

    def names(self) -> list[str]:
        try:
            return sorted(self._admin.list_topics(timeout=self._timeout_s).topics)
        except KafkaException as error:
            raise translate(error, "list topics", self._connection.bootstrap) from error

    def delete(self, names: list[str]) -> None:
        """Delete topics; those that are not there are passed over."""
        for name, future in self._admin.delete_topics(names, request_timeout=self._timeout_s).items():
            try:
                self._wait(future, f"delete topic {name}")
            except KafkaException as error:
                if error.args[0].code() != KafkaError.UNKNOWN_TOPIC_OR_PART:
                    raise

    def _until_known(self, name: str, ask: Callable[[], object]) -> None:
        """A topic that the controller made reaches the brokers a little later; until then they deny it."""
        deadline = time.monotonic() + self._timeout_s
        while True:
            try:
                if self.describe(name) is not None:
                    ask()
                    return
            except UnknownStreamError:
                pass
            if time.monotonic() > deadline:
                raise self._silent(f"find topic {name} after creating it")
            time.sleep(0.05)

    def _wait(self, future: Any, doing: str) -> Any:
        try:
            return future.result(self._timeout_s + 5)
        except KafkaException as error:
            code = error.args[0].code()
            if code in (KafkaError.TOPIC_ALREADY_EXISTS, KafkaError.INVALID_PARTITIONS):
                raise _AlreadyThereError from error
            raise translate(error, doing, self._connection.bootstrap) from error
        except FutureTimeoutError as error:
            raise self._silent(doing) from error

    def _silent(self, doing: str) -> BrokerUnavailableError:
        where = self._connection.bootstrap
        return BrokerUnavailableError(f"could not {doing}: no broker answered at {where} in {self._timeout_s:g} s")


class _AlreadyThereError(Exception):
    pass
