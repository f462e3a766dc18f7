"""Creating and describing the schemas topic. Each call opens and closes its own client."""

from __future__ import annotations

import time
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Final, NamedTuple

from confluent_kafka import IsolationLevel, KafkaError, KafkaException, TopicCollection, TopicPartition
from confluent_kafka.admin import AdminClient, ConfigResource, NewTopic, OffsetSpec, ResourceType

from pipeline.errors import BrokerUnavailableError, HeadraceError, StopError

REPLICAS_MAX: Final = 3
_LOOK_EVERY_S: Final = 0.05
QUIET: Final = {"log_level": 2}
"""For clients that are not polled all the time: librdkafka would write lines of its own to standard error for every refused
connection. The calls raise what fails, and the reader's client logs it."""


class TopicFacts(NamedTuple):
    """What the registry must know of its topic. ``message_bytes_max`` is the broker's limit for one record."""

    partitions: int
    replicas: int
    compacted: bool
    message_bytes_max: int


def ensure_topic(settings: Mapping[str, Any], topic: str, timeout_s: float) -> None:
    """Creates the topic (1 partition, compacted, up to 3 replicas) where there is none; refuses one that loses schemas.

    Raises ``BrokerUnavailableError``, or ``StopError`` saying what is wrong with the topic and how to correct it.
    """
    admin = _admin(settings)
    try:
        metadata = admin.list_topics(timeout=timeout_s)
        if topic not in metadata.topics:
            replicas = min(REPLICAS_MAX, len(metadata.brokers))
            config = {"cleanup.policy": "compact"} | ({"min.insync.replicas": "2"} if replicas >= REPLICAS_MAX else {})
            new = NewTopic(topic, num_partitions=1, replication_factor=replicas, config=config)
            _create(admin, new, timeout_s)
    except KafkaException as error:
        raise _translate(error, topic) from error
    _wait_until_known(admin, topic, timeout_s)
    facts = describe(settings, topic, timeout_s)
    if facts.partitions != 1:
        raise StopError(
            f"the topic {topic} has {facts.partitions} partitions, which has no single order: name another topic for the registry"
        )
    if not facts.compacted:
        raise StopError(f"the topic {topic} is not compacted, so old schemas would be lost: set cleanup.policy=compact on it")


def _create(admin: AdminClient, new: NewTopic, timeout_s: float) -> None:
    try:
        admin.create_topics([new], operation_timeout=timeout_s, request_timeout=timeout_s)[new.topic].result(timeout_s)
    except KafkaException as error:
        if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:  # two registries that start together
            raise


def _wait_until_known(admin: AdminClient, topic: str, timeout_s: float) -> None:
    # A new topic's partitions reach the brokers' metadata some time after the controller has answered.
    deadline = time.monotonic() + timeout_s
    try:
        while not admin.list_topics(topic, timeout=timeout_s).topics[topic].partitions and time.monotonic() < deadline:
            time.sleep(_LOOK_EVERY_S)
    except KafkaException as error:
        raise _translate(error, topic) from error


def describe(settings: Mapping[str, Any], topic: str, timeout_s: float) -> TopicFacts:
    """Facts of an existing topic. Raises ``BrokerUnavailableError``."""
    admin = _admin(settings)
    try:
        partitions = admin.list_topics(topic, timeout=timeout_s).topics[topic].partitions
        resource = ConfigResource(ResourceType.TOPIC, topic)
        config = admin.describe_configs([resource], request_timeout=timeout_s)[resource].result(timeout_s)
    except KafkaException as error:
        raise _translate(error, topic) from error
    if not partitions:
        raise BrokerUnavailableError(f"the topic {topic} has no partitions yet")
    return TopicFacts(
        partitions=len(partitions),
        replicas=len(partitions[0].replicas),
        compacted="compact" in config["cleanup.policy"].value and "delete" not in config["cleanup.policy"].value,
        message_bytes_max=int(config["max.message.bytes"].value),
    )


def topic_id(settings: Mapping[str, Any], topic: str, timeout_s: float) -> str:
    """The id that Kafka gave this topic; one of the same name that is created later has another.

    Raises ``StopError`` if there is no such topic, ``BrokerUnavailableError``.
    """
    try:
        futures = _admin(settings).describe_topics(TopicCollection([topic]), request_timeout=timeout_s)
        return str(futures[topic].result(timeout_s).topic_id)
    except KafkaException as error:
        raise _translate(error, topic) from error
    except TimeoutError as error:
        raise BrokerUnavailableError(f"the topic {topic}: no broker described it within {timeout_s:g} s") from error


def end_offset(settings: Mapping[str, Any], topic: str, timeout_s: float) -> int:
    """Where the committed records of partition 0 end. Raises ``BrokerUnavailableError``."""
    place = TopicPartition(topic, 0)
    try:
        futures = _admin(settings).list_offsets(
            {place: OffsetSpec.latest()}, isolation_level=IsolationLevel.READ_COMMITTED, request_timeout=timeout_s
        )
        return int(futures[place].result(timeout_s).offset)
    except KafkaException as error:
        raise _translate(error, topic) from error
    except TimeoutError as error:
        raise BrokerUnavailableError(f"the topic {topic}: no broker told its end within {timeout_s:g} s") from error


def _admin(settings: Mapping[str, Any]) -> AdminClient:
    return _cached_admin(tuple(sorted(settings.items())))


@lru_cache(maxsize=8)
def _cached_admin(items: tuple[tuple[str, Any], ...]) -> AdminClient:
    # One client per cluster and process: opening a connection for every look-up of an unknown id would cost more than it.
    return AdminClient(dict(items) | QUIET)


def _translate(error: KafkaException, topic: str) -> HeadraceError:
    cause: KafkaError = error.args[0]
    if cause.code() in (KafkaError.TOPIC_AUTHORIZATION_FAILED, KafkaError.CLUSTER_AUTHORIZATION_FAILED):
        return StopError(f"the registry may not use the topic {topic}: {cause.str()}")
    if cause.code() in (KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC, KafkaError._UNKNOWN_PARTITION):
        return StopError(f"the topic {topic} is gone: find out who deleted it, restore it, and start the registry again")
    return BrokerUnavailableError(f"the topic {topic}: {cause.str()}")
