"""First and end offsets of partitions, asked of their leaders."""

from __future__ import annotations

from collections.abc import Iterable

from confluent_kafka import Consumer, KafkaException, TopicPartition

from pipeline.config import Connection
from pipeline.kafka.settings import reader_settings
from pipeline.kafka.translate import translate

Place = tuple[str, int]


def bounds(connection: Connection, places: Iterable[Place], timeout_s: float = 15.0) -> dict[Place, tuple[int, int]]:
    """(first offset kept, end offset) of each (topic, partition). Raises BrokerUnavailableError, or UnknownStreamError where
    there is no such partition. One connection for all; not for a hot path."""
    consumer = Consumer(reader_settings(connection))
    try:
        found = {}
        for topic, partition in sorted(places):
            try:
                low, high = consumer.get_watermark_offsets(TopicPartition(topic, partition), timeout=timeout_s, cached=False)
            except KafkaException as error:
                raise translate(error, f"read the offsets of {topic}/{partition}", connection.bootstrap) from error
            found[topic, partition] = (low, high)
        return found
    finally:
        consumer.close()
