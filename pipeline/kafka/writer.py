"""Writing one message at a time and waiting for its acknowledgement: control events, END markers, marks, dead letters."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from confluent_kafka import KafkaException, Message, Producer

from pipeline.config import Connection
from pipeline.errors import BrokerUnavailableError, HeadraceError
from pipeline.kafka.settings import writer_settings
from pipeline.kafka.translate import translate

Headers = Sequence[tuple[str, bytes | None]]


class Writer:
    """Writes with acks=all, one message at a time. Not thread-safe; holds no message after ``write`` returned or raised."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._producer: Producer | None = None
        self._known: set[tuple[str, int]] = set()

    def prepare(self) -> None:
        """Begin to connect, without waiting: the first write of an idempotent client takes half a second otherwise."""
        if self._producer is None:
            self._producer = Producer(writer_settings(self._connection))

    def write(
        self,
        topic: str,
        partition: int,
        key: bytes | None,
        value: bytes | None,
        headers: Headers = (),
        timeout_s: float = 15.0,
    ) -> int | None:
        """Write a message; returns its offset, None if the broker had it from an earlier try and did not say where.

        Raises BrokerUnavailableError after ``timeout_s``: the message may still arrive then, so the caller looks into the
        log before it decides anything.
        """
        outcome: list[int | HeadraceError | None] = []
        doing = f"write to {topic}[{partition}]"

        def delivered(error: Any, message: Message) -> None:
            offset = message.offset()
            if error is not None:
                outcome.append(translate(error, doing, self._connection.bootstrap))
            else:
                outcome.append(None if offset is None or offset < 0 else offset)

        producer = self._producer
        self._producer = None  # only a client without an open write is kept
        if producer is None:
            producer, self._known = Producer(writer_settings(self._connection)), set()
        try:
            if (topic, partition) not in self._known:  # a partition that is new has to be known before it is named
                producer.list_topics(topic, timeout=timeout_s)
            producer.produce(
                topic, value=value, key=key, partition=partition, headers=list(headers), on_delivery=delivered
            )
        except KafkaException as error:
            raise translate(error, doing, self._connection.bootstrap) from error
        deadline = time.monotonic() + timeout_s
        while not outcome and time.monotonic() < deadline:
            producer.poll(min(0.5, timeout_s))
        if not outcome:
            producer.purge(blocking=False)
            raise BrokerUnavailableError(
                f"could not {doing}: {self._connection.bootstrap} did not answer in {timeout_s:g} s: check the broker"
            )
        if isinstance(outcome[0], HeadraceError):
            raise outcome[0]
        self._producer = producer
        self._known.add((topic, partition))
        return outcome[0]

    def close(self) -> None:
        self._producer = None
