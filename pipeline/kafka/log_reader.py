"""Reading one partition by hand, from an offset up to an end: the control log, and scans of data partitions."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from pipeline.config import Connection
from pipeline.errors import BrokerUnavailableError
from pipeline.kafka.bounds import partition_bounds
from pipeline.kafka.settings import reader_settings
from pipeline.kafka.translate import translate

SCAN_WAIT_MS = 5  # a fetch that waits for news holds up whatever is asked next on its connection


@dataclass(frozen=True, slots=True)
class LogEntry:
    """One message of a partition. ``timestamp_ms`` is the broker's."""

    offset: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes | None], ...]
    timestamp_ms: int


class LogReader:
    """A position in one partition, and then in another (``turn_to``): making a client costs more than what it reads.
    Not thread-safe; ``close`` it.

    With ``follow`` it goes on fetching between reads, so that news come at once; else it rests."""

    def __init__(self, connection: Connection, topic: str, partition: int, *, follow: bool = False) -> None:
        self._bootstrap = connection.bootstrap
        self._place = TopicPartition(topic, partition)
        self._settings = reader_settings(connection) | ({} if follow else {"fetch.wait.max.ms": SCAN_WAIT_MS})
        self._follow = follow
        self._consumer = Consumer(self._settings)
        self._asker: Consumer | None = None
        self._fetching = False
        self._position: int | None = None

    def turn_to(self, topic: str, partition: int) -> None:
        """Read another partition from now on."""
        if (self._place.topic, self._place.partition) != (topic, partition):
            self._place = TopicPartition(topic, partition)
            self._position = None

    def bounds(self, timeout_s: float) -> tuple[int, int]:
        """(first offset kept, end offset), asked of the partition's leader now."""
        if self._fetching and self._asker is None:
            # A broker answers one request of a connection at a time: behind a fetch that waits for news, a question waits.
            self._asker = Consumer(self._settings)
        place = self._place.topic, self._place.partition
        try:
            return partition_bounds(self._asker or self._consumer, place, self._bootstrap, timeout_s)
        except BrokerUnavailableError as error:
            if _lost_every_broker(error):
                self._renew()
            raise

    def read(self, start: int, end: int, timeout_s: float) -> Iterator[LogEntry]:
        """The messages from offset ``start`` on, in order, at least up to offset ``end``: what came with them is given too.
        Gaps (compaction) are passed over: arrival at the end is known from an offset past it, or from the partition's end.
        Raises BrokerUnavailableError when nothing more comes for ``timeout_s``."""
        if start >= end:
            return
        if self._position != start:
            self._consumer.assign([TopicPartition(self._place.topic, self._place.partition, start)])
            self._position, self._fetching = start, True
        deadline = time.monotonic() + timeout_s
        while self._position < end:
            # consume(n, t) waits the whole t for n messages; so wait for one, and take what came with it.
            first = self._consumer.poll(min(0.2, timeout_s))
            batch = [] if first is None else [first, *self._consumer.consume(500, timeout=0)]
            for message in batch:
                error = message.error()
                if error is None:
                    self._position = message.offset() + 1
                    headers = tuple((name, _bytes(value)) for name, value in message.headers() or ())
                    yield LogEntry(message.offset(), message.key(), message.value(), headers, message.timestamp()[1])
                elif error.code() == KafkaError._PARTITION_EOF:
                    if message.offset() >= end:
                        self._position = max(self._position, end)
                elif not error.retriable() and error.code() not in (KafkaError._TRANSPORT, KafkaError._ALL_BROKERS_DOWN):
                    raise translate(error, f"read {self._place.topic}", self._bootstrap)
            if batch:
                deadline = time.monotonic() + timeout_s
            elif time.monotonic() > deadline:
                at = self._position
                self._renew()
                raise BrokerUnavailableError(
                    f"could not read {self._place.topic} up to offset {end}: nothing came from {self._bootstrap} "
                    f"for {timeout_s:g} s (at {at})"
                )
        if not self._follow:
            self._consumer.unassign()
            self._position, self._fetching = None, False

    def close(self) -> None:
        self._consumer.close()
        if self._asker is not None:
            self._asker.close()

    def _renew(self) -> None:
        """Go on with a new client (see ``_lost_every_broker``)."""
        self.close()
        self._consumer, self._asker = Consumer(self._settings), None
        self._position, self._fetching = None, False


def _lost_every_broker(error: BrokerUnavailableError) -> bool:
    """Whether the client that raised it has to be replaced. A broker that starts, or was frozen, may name no brokers at all;
    librdkafka forgets those that it knew then, and where its connection ends at that moment it never asks again (its issue
    5301)."""
    cause = error.__cause__
    return isinstance(cause, KafkaException) and cause.args[0].code() == KafkaError._ALL_BROKERS_DOWN


def _bytes(value: str | bytes | None) -> bytes | None:
    return value.encode() if isinstance(value, str) else value
