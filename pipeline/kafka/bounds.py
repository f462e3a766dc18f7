"""Where a partition begins and ends, asked of its leader now."""

from __future__ import annotations

import time

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

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
