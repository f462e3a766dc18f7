"""The librdkafka client that carries aggregates, with its own thread for delivery reports.

One Sender is one client; after a fatal error it is thrown away and a new one sends everything outstanding again.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from enum import Enum
from typing import Any

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from pipeline import metrics
from pipeline.config import Connection
from pipeline.errors import HeadraceError, StopError
from pipeline.kafka.settings import producer_settings
from pipeline.kafka.translate import is_refusal, is_unknown_topic, translate

_TOO_LARGE = {KafkaError.MSG_SIZE_TOO_LARGE, KafkaError.INVALID_MSG_SIZE, KafkaError.RECORD_LIST_TOO_LARGE}


class Failure(Enum):
    """What an error asks for."""

    AGAIN = "again"  # the outcome is unknown: a new client sends again
    TOO_LARGE = "too large"  # the broker refuses this message for good
    STOP = "stop"  # trying again cannot help before a person acted


Delivered = Callable[[Any, int | None], None]
Failed = Callable[[Any | None, Failure, HeadraceError], None]


class Sender:
    """``on_delivered(parcel, offset or None)`` and ``on_failed(parcel or None, failure, error)`` are called from the
    Sender's own thread; a failure without a parcel concerns the whole client."""

    def __init__(
        self,
        connection: Connection,
        stream: str,
        compression: str,
        message_bytes_max: int,
        on_delivered: Delivered,
        on_failed: Failed,
    ) -> None:
        self._bootstrap = connection.bootstrap
        self._stream = stream
        self._on_delivered = on_delivered
        self._on_failed = on_failed
        settings = producer_settings(connection, compression, message_bytes_max)
        self._producer = Producer(settings | {"error_cb": self._client_error})
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._poll, name="headrace-delivery", daemon=True)
        self._thread.start()

    def send(
        self,
        parcel: Any,
        place: tuple[str, int],
        key: bytes,
        value: bytes | None,
        headers: list[tuple[str, bytes | None]],
        timestamp_ms: int = 0,
    ) -> None:
        """Hand a message over; its outcome comes by callback, also where it is refused here. ``timestamp_ms`` 0 is now."""

        def report(error: KafkaError | None, message: Message) -> None:
            if self._stopped.is_set():
                return
            if error is not None:
                self._fail(parcel, error)
            else:
                offset = message.offset()  # None: acknowledged without an offset
                self._on_delivered(parcel, None if offset is None or offset < 0 else offset)

        try:
            self._producer.produce(
                place[0], value, key, place[1], on_delivery=report, timestamp=timestamp_ms, headers=headers
            )
        except KafkaException as error:
            self._fail(parcel, error.args[0])
        except BufferError as error:
            self._on_failed(parcel, Failure.AGAIN, StopError(f"librdkafka's queue is full: {error}"))

    def find_partitions(self, topic: str, timeout_s: float) -> int:
        """Ask for the topic's partitions now, so that a new one can be written to. Returns how many there are."""
        try:
            described = self._producer.list_topics(topic, timeout=timeout_s).topics[topic]
        except KafkaException as error:
            raise translate(error, f"look up topic {topic}", self._bootstrap) from error
        return len(described.partitions)

    def close(self) -> None:
        """Stop reporting and drop what is still under way: the caller sends it again, or has given it up."""
        self._stopped.set()
        self._producer.purge(in_queue=True, in_flight=True, blocking=False)
        if threading.current_thread() is not self._thread:
            self._thread.join(10)

    def _poll(self) -> None:
        while not self._stopped.is_set():
            try:
                self._producer.poll(0.2)
            except KafkaException as error:  # a fatal error; also what our own purge leaves behind
                if not self._stopped.is_set():
                    self._fail(None, error.args[0])
                    self._stopped.wait(0.2)

    def _fail(self, parcel: Any | None, error: KafkaError) -> None:
        translated = translate(error, "send", self._bootstrap)
        metrics.SEND_ERRORS.labels(self._stream, error.name()).inc()
        if error.code() in _TOO_LARGE:
            self._on_failed(parcel, Failure.TOO_LARGE, translated)
        elif is_refusal(error) or is_unknown_topic(error):
            self._on_failed(parcel, Failure.STOP, translated)
        else:
            self._on_failed(parcel, Failure.AGAIN, translated)

    def _client_error(self, error: KafkaError) -> None:
        if (error.fatal() or is_refusal(error)) and not self._stopped.is_set():
            self._fail(None, error)
