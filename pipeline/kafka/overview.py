"""What a survey asks of the cluster: brokers, topics with their partitions, groups and what they committed. Thread-safe."""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import TimeoutError as FutureTimeoutError
from dataclasses import dataclass
from typing import Any

from confluent_kafka import ConsumerGroupTopicPartitions, KafkaException, TopicPartition

from pipeline.errors import BrokerUnavailableError
from pipeline.kafka.groups import Groups
from pipeline.kafka.translate import translate
from pipeline.model.shards import Place

GROUPS_MAX = 500


@dataclass(frozen=True, slots=True)
class Metadata:
    """``lacking`` are the partitions, by topic, that lack an in-sync replica."""

    brokers: int
    partitions: dict[str, int]
    lacking: dict[str, int]


class Overview(Groups):
    """Raises BrokerUnavailableError when nothing answers in time. One client for all: ``metadata`` is also what makes
    partitions known to it that a reshard added; ask it before ``bounds``."""

    def metadata(self) -> Metadata:
        try:
            found = self._admin.list_topics(timeout=self._timeout_s)
        except KafkaException as error:
            raise translate(error, "list topics", self._bootstrap) from error
        lacking = {
            name: sum(len(one.isrs) < len(one.replicas) for one in topic.partitions.values())
            for name, topic in found.topics.items()
        }
        return Metadata(len(found.brokers), {name: len(topic.partitions) for name, topic in found.topics.items()}, lacking)

    def groups(self) -> list[str]:
        """The first GROUPS_MAX groups by name."""
        listed = self._answer(self._admin.list_consumer_groups(request_timeout=self._timeout_s), "list the groups")
        return sorted(one.group_id for one in listed.valid)[:GROUPS_MAX]

    def committed(self, groups: Iterable[str], places: Iterable[Place]) -> dict[str, dict[Place, int]]:
        """By group, the next offsets that it committed; groups without any are left out. The requests run side by side."""
        asked = [TopicPartition(*place) for place in places]
        if not asked:
            return {}
        futures: dict[str, Any] = {}
        for group in groups:
            request = [ConsumerGroupTopicPartitions(group, asked)]
            futures |= self._admin.list_consumer_group_offsets(request, request_timeout=self._timeout_s)
        found: dict[str, dict[Place, int]] = {}
        for group, future in futures.items():
            answer = self._answer(future, f"read what group {group} committed")
            offsets = {(tp.topic, tp.partition): tp.offset for tp in answer.topic_partitions if tp.offset >= 0}
            if offsets:
                found[group] = offsets
        return found

    def _answer(self, future: Any, doing: str) -> Any:
        try:
            return future.result(self._timeout_s + 5)
        except KafkaException as error:
            raise translate(error, doing, self._bootstrap) from error
        except FutureTimeoutError as error:
            raise BrokerUnavailableError(f"could not {doing}: no broker answered at {self._bootstrap}") from error
