"""Consumer groups from outside: their positions, set while they have no members. Thread-safe."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from concurrent.futures import TimeoutError as FutureTimeoutError
from typing import Any

from confluent_kafka import ConsumerGroupTopicPartitions, KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec

from pipeline.config import Connection
from pipeline.errors import BrokerUnavailableError, StopError
from pipeline.kafka.settings import log
from pipeline.kafka.translate import translate
from pipeline.model.shards import Place

LEAVING_S = 15.0  # longer than a group's session: a member whose leave was lost is given up by then
_HAS_MEMBERS = {KafkaError.UNKNOWN_MEMBER_ID, KafkaError.NON_EMPTY_GROUP, KafkaError.ILLEGAL_GENERATION}
_HAS_MEMBERS |= {KafkaError.GROUP_SUBSCRIBED_TO_TOPIC, KafkaError.STALE_MEMBER_EPOCH}


class Groups:
    """Raises BrokerUnavailableError when nothing answers in ``timeout_s``."""

    def __init__(self, connection: Connection, timeout_s: float = 15.0) -> None:
        self._bootstrap = connection.bootstrap
        self._timeout_s = timeout_s
        self._admin = AdminClient(connection.kafka_settings() | {"client.id": "headrace", "logger": log})

    def bounds(self, places: Iterable[Place]) -> tuple[dict[Place, int], dict[Place, int]]:
        """(first offsets kept, end offsets)."""
        asked = list(places)
        first = self._offsets({place: OffsetSpec.earliest() for place in asked})
        ends = self._offsets({place: OffsetSpec.latest() for place in asked})
        return {p: at or 0 for p, at in first.items()}, {p: at or 0 for p, at in ends.items()}

    def offsets_at(self, places: Iterable[Place], timestamp_ms: int) -> dict[Place, int | None]:
        """The first offset at or after a time; None where there is none."""
        return self._offsets({place: OffsetSpec.for_timestamp(timestamp_ms) for place in places})

    def positions(self, group: str, places: Iterable[Place]) -> dict[Place, int]:
        """The next offsets that a group committed; absent where it did not."""
        request = ConsumerGroupTopicPartitions(group, [TopicPartition(*place) for place in places])
        doing = f"read the positions of group {group}"
        try:
            answer = self._wait(self._admin.list_consumer_group_offsets([request])[group], doing)
        except KafkaException as error:
            raise translate(error, doing, self._bootstrap) from error
        return {(tp.topic, tp.partition): tp.offset for tp in answer.topic_partitions if tp.offset >= 0}

    def set_positions(self, group: str, positions: Mapping[Place, int]) -> None:
        """Set the next offsets of a group without members. Raises StopError where it has some: one that left a moment ago may
        still count, so it is asked for again for ``LEAVING_S``."""
        deadline = time.monotonic() + LEAVING_S
        while True:
            try:
                return self._set_positions(group, positions)
            except StopError:
                if time.monotonic() > deadline:
                    raise
            time.sleep(0.1)

    def _set_positions(self, group: str, positions: Mapping[Place, int]) -> None:
        offsets = [TopicPartition(*place, offset) for place, offset in positions.items()]
        request = [ConsumerGroupTopicPartitions(group, offsets)]
        doing = f"set the positions of group {group}"
        try:
            answer = self._wait(self._admin.alter_consumer_group_offsets(request)[group], doing)
        except KafkaException as error:
            raise self._explain(error.args[0], group, doing) from error
        for tp in answer.topic_partitions:
            if tp.error is not None:
                raise self._explain(tp.error, group, doing)

    def _offsets(self, asked: dict[Place, Any]) -> dict[Place, int | None]:
        requests = {TopicPartition(*place): spec for place, spec in asked.items()}
        found: dict[Place, int | None] = {}
        for tp, future in self._admin.list_offsets(requests, request_timeout=self._timeout_s).items():
            try:
                offset = self._wait(future, f"read offsets of {tp.topic}[{tp.partition}]").offset
            except KafkaException as error:
                raise translate(error, f"read offsets of {tp.topic}[{tp.partition}]", self._bootstrap) from error
            found[(tp.topic, tp.partition)] = None if offset < 0 else offset
        return found

    def _wait(self, future: Any, doing: str) -> Any:
        try:
            return future.result(self._timeout_s + 5)
        except FutureTimeoutError as error:
            raise BrokerUnavailableError(f"could not {doing}: no broker answered at {self._bootstrap}") from error

    def _explain(self, error: KafkaError, group: str, doing: str) -> Exception:
        if error.code() in _HAS_MEMBERS:
            return StopError(f"group {group} still has members: stop its consumers, then rewind it")
        return translate(error, doing, self._bootstrap)
