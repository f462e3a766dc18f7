"""Where a partition begins and ends, asked of its leader now."""

from __future__ import annotations

import time

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from pipeline.errors import BrokerUnavailableError
from pipeline.kafka.translate import translate
from pipeline.model.shards import Place

_NOT_YET = {
    KafkaError._UNKNOWN_PARTITION,
    KafkaError.UNKNOWN_TOPIC_OR_PART,
    KafkaError.LEADER_NOT_AVAILABLE,
    KafkaError.NOT_LEADER_FOR_PARTITION,
}


def partition_bounds(consumer: Consumer, place: Place, bootstrap: str, timeout_s: float) -> tuple[int, int]:
    """(first offset kept, end offset). A partition made a moment ago is not known everywhere yet: it is asked for again until
    ``timeout_s`` is over. Not to be called inside a rebalance callback. Raises BrokerUnavailableError, UnknownStreamError."""
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            low, high = consumer.get_watermark_offsets(TopicPartition(*place), timeout=timeout_s, cached=False)
            return low, high
        except KafkaException as error:
            if error.args[0].code() not in _NOT_YET or time.monotonic() > deadline:
                raise translate(error, f"read the bounds of {place[0]}[{place[1]}]", bootstrap) from error
        time.sleep(0.05)
        try:
            consumer.list_topics(place[0], timeout=timeout_s)
        except KafkaException as error:
            raise translate(error, f"read the bounds of {place[0]}[{place[1]}]", bootstrap) from error


def lost_every_broker(error: BrokerUnavailableError) -> bool:
    """Whether the client that raised it has to be replaced. A broker that starts, or was frozen, may name no brokers at all;
    librdkafka forgets those that it knew then, and where its connection ends at that moment it never asks again (its issue
    5301)."""
    cause = error.__cause__
    return isinstance(cause, KafkaException) and cause.args[0].code() == KafkaError._ALL_BROKERS_DOWN
