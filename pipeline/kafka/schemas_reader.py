"""Reading the schemas topic: one thread that applies every committed record in order, and says how far it is."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, Message, TopicPartition

from pipeline.errors import BrokerUnavailableError, ClosedError, HeadraceError, StopError
from pipeline.kafka.schemas_admin import topic_id

log = logging.getLogger("headrace.registry.topic")

IDENTITY_CHECK_S: Final = 5.0
# An unknown topic is not among them: a broker that is behind says so of a topic that was just created.
_SHORTER: Final = frozenset({KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE})


class LogRecord(NamedTuple):
    """One record as it lies in the topic."""

    offset: int
    key: bytes | None
    value: bytes | None
    timestamp_ms: int


class SchemasReader:
    """Reads ``topic`` from its beginning. ``apply`` is called on the reading thread only; the rest from any thread."""

    def __init__(
        self, settings: Mapping[str, Any], topic: str, apply: Callable[[Sequence[LogRecord]], None], timeout_s: float
    ) -> None:
        self._settings = settings
        self._topic = topic
        self._apply = apply
        self._timeout_s = timeout_s
        self._topic_id = topic_id(settings, topic, timeout_s)
        self._stopping = threading.Event()
        self._moved = threading.Condition()
        self._applied_offset = 0  # guarded by _moved: everything before it was applied
        self._failure: HeadraceError | None = None  # guarded by _moved
        self._thread = threading.Thread(target=self._read, name="schemas-reader", daemon=True)
        self._thread.start()

    @property
    def failure(self) -> str | None:
        """Why the topic is not read any more; None while it is."""
        with self._moved:
            return None if self._failure is None else str(self._failure)

    def wait_applied(self, offset: int, deadline: float) -> None:
        """Returns when everything before ``offset`` was applied. ``deadline`` is of ``time.monotonic``.

        Raises ``BrokerUnavailableError`` after the deadline, what ended the reading, or ``ClosedError``.
        """
        with self._moved:
            done = self._moved.wait_for(
                lambda: self._failure is not None or self._stopping.is_set() or self._applied_offset >= offset,
                max(0.0, deadline - time.monotonic()),
            )
            if self._failure is not None:
                raise self._failure
            if self._stopping.is_set():
                raise ClosedError("the registry is stopping")
            if not done:
                raise BrokerUnavailableError(
                    f"the topic {self._topic} was not read to its end within {self._timeout_s:g} s: check the broker"
                )

    def _read(self) -> None:
        consumer = open_consumer(self._settings, self._topic, "read_committed", 0)
        check_at = time.monotonic() + IDENTITY_CHECK_S
        try:
            while not self._stopping.is_set():
                first = consumer.poll(0.2)
                if time.monotonic() >= check_at:
                    self._check_identity()
                    check_at = time.monotonic() + IDENTITY_CHECK_S
                if first is None:
                    continue
                records, reached = sort(self._topic, [first, *consumer.consume(2_000, 0)])
                self._apply(records)
                with self._moved:
                    self._applied_offset = max(self._applied_offset, reached)
                    self._moved.notify_all()
        except Exception as error:  # noqa: BLE001 - a reader that stops in silence would answer from an old state for ever
            log.error("reading %s stopped: %s", self._topic, error)
            with self._moved:
                self._failure = error if isinstance(error, HeadraceError) else StopError(f"{self._topic} unreadable: {error}")
                self._moved.notify_all()
        finally:
            consumer.close()

    def _check_identity(self) -> None:
        """librdkafka says nothing to the reader of a topic that is deleted, or deleted and created again."""
        try:
            found = topic_id(self._settings, self._topic, 2.0)
        except BrokerUnavailableError:
            return  # what was read stays true while no broker answers
        if found != self._topic_id:
            raise StopError(
                f"the topic {self._topic} was deleted and created again, its schemas are not those read before: "
                "find out who did it, and start the registry again"
            )

    def close(self) -> None:
        """Stops the thread. Waiting calls end with ``ClosedError``."""
        self._stopping.set()
        with self._moved:
            self._moved.notify_all()
        self._thread.join(self._timeout_s)


def open_consumer(settings: Mapping[str, Any], topic: str, isolation: str, offset: int) -> Consumer:
    """A consumer of partition 0 from ``offset`` on; 0 is wherever the log begins."""
    consumer = Consumer(
        {
            **settings,
            "logger": log,
            "group.id": "headrace-registry",  # asked for by librdkafka; nothing is committed under it
            "enable.auto.commit": False,
            "auto.offset.reset": "error",
            "isolation.level": isolation,
            "enable.partition.eof": True,
            "fetch.wait.max.ms": 100,
        }
    )
    consumer.assign([TopicPartition(topic, 0, offset or OFFSET_BEGINNING)])
    return consumer


def sort(topic: str, messages: Sequence[Message]) -> tuple[list[LogRecord], int]:
    """Records, and the offset before which everything was seen (control records are seen only as a gap or as the end)."""
    records: list[LogRecord] = []
    reached = 0
    for message in messages:
        error, offset = message.error(), message.offset()
        if error is None and offset is not None:
            records.append(LogRecord(offset, message.key(), message.value(), message.timestamp()[1]))
            reached = offset + 1
        elif error is not None and error.code() == KafkaError._PARTITION_EOF:
            reached = max(reached, offset or 0)
        elif error is not None and error.code() in _SHORTER:
            raise StopError(
                f"the topic {topic} is shorter than already read ({error.str()}): "
                "find out who took records away, restore them, and start the registry again"
            )
        elif error is not None:
            log.warning("reading %s: %s", topic, error.str())
    return records, reached
