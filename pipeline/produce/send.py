"""Sending: seals what has lingered, hands aggregates to librdkafka in order, and starts a new client when one fails.

Runs on its own thread. Order is settling's affair; this one only carries.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable
from typing import Any

from pipeline import metrics
from pipeline.config import Connection
from pipeline.errors import HeadraceError, RecordTooLargeError
from pipeline.kafka.sender import Failure, Sender
from pipeline.model.shards import Place
from pipeline.produce.aggregate import Aggregate
from pipeline.produce.expire import locked_expire
from pipeline.produce.figures import SendFigures
from pipeline.produce.skew import Skew
from pipeline.produce.stamping import Messages, Stamper
from pipeline.produce.state import ProducerState, now_ms

log = logging.getLogger("headrace.produce")
BACKOFF_S_MAX = 5.0
IDLE_WAIT_MS = 1000


class SendLoop:
    """The sender's thread and the client that it currently uses."""

    def __init__(
        self, state: ProducerState, connection: Connection, stream: str, messages: Messages, producer: str, incarnation: int
    ) -> None:
        self._state = state
        self._connection = connection
        self._messages = messages
        self._stamper = Stamper(producer, incarnation)
        self._stream = stream
        self._figures = SendFigures(stream)
        self._limited_seconds = metrics.LIMITED_SECONDS.labels(stream)
        self._client_failures = metrics.CLIENT_FAILURES.labels(stream)
        self.skew = Skew(stream)
        self._partitions: dict[str, int] = {}
        self._failures_in_row = 0
        self._broken: HeadraceError | None = None
        self._client = self._new_client()
        self._thread = threading.Thread(target=self._run, name="headrace-send", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def join(self, timeout_s: float) -> None:
        self._thread.join(timeout_s)
        self._client.close()

    def _run(self) -> None:
        try:
            while True:
                parcels = self._next()
                if parcels is None:
                    return
                if self._broken is not None:
                    self._replace_client()
                    continue
                for parcel in parcels:
                    if self._broken is not None:
                        break  # a later one must not land before those that failed; what is left counts as unknown
                    self._send(parcel)
        except Exception as error:  # a bug of ours must fail the receipts, not leave them waiting
            log.exception("the sending thread failed")
            failure = error if isinstance(error, HeadraceError) else HeadraceError(f"sending failed: {error!r}")
            with self._state.lock:
                self._state.locked_stop(failure)

    def _next(self) -> list[Any] | None:
        """Wait for aggregates to send; None when there will be no more."""
        state = self._state
        with state.lock:
            while True:
                if state.failure is not None:
                    return None
                if self._broken is not None:
                    return []
                now = now_ms()
                locked_expire(state, now)
                parcels = state.locked_take_parcels(now, state.limits.in_flight_max)
                for parcel in parcels:
                    parcel.handed_over = True
                if parcels:
                    return parcels
                if state.closing and state.locked_idle:
                    return None
                deadline = min(state.packer.next_deadline_ms() or now + IDLE_WAIT_MS, state.rates.next_ms() or now + IDLE_WAIT_MS)
                self._count_limited()
                state.sender_wakes_ms = deadline
                state.work.wait(max(deadline - now, 1) / 1000)
                state.sender_wakes_ms = 0

    def _count_limited(self) -> None:
        stats = self._state.stats
        self._limited_seconds.inc((self._state.rates.held_ms - stats.limited_ms) / 1000)
        stats.limited_ms = self._state.rates.held_ms

    def _send(self, parcel: Aggregate) -> None:
        if parcel.previous_seq is None:  # not one that is sent again
            self.skew.add(parcel)
        now = now_ms()
        stamp = self._stamper.stamp(parcel, now)
        message = self._messages.of(parcel, stamp)
        place = self._state.settled.shard_map.shards[parcel.shard].place
        self._find(place)
        self._state.stats.aggregates_sent += 1
        self._state.stats.bytes_sent += message.size_bytes
        self._figures.sending(parcel, message.size_bytes, now)
        self._client.send(parcel, place, message.key, message.value, message.headers, message.timestamp_ms)

    def _find(self, place: Place) -> None:
        """A partition made by a reshard has to be known to the client before it is named."""
        topic, partition = place
        tries = 0
        while self._partitions.get(topic, 0) <= partition:
            if tries:
                time.sleep(min(0.1 * tries, 1.0))
            tries += 1
            with self._state.lock:
                if self._state.failure is not None or tries > 50:
                    return  # the client reports the unknown partition, and its message is sent again
            try:
                self._partitions[topic] = self._client.find_partitions(topic, 5.0)
            except HeadraceError as error:
                log.warning("%s", error)

    # -- the client's outcomes, from its thread --------------------------------------------------------------------------

    def _callbacks(self) -> tuple[Callable[[Any, int | None], None], Callable[[Any | None, Failure, HeadraceError], None]]:
        """Callbacks of one client; those of a replaced one are not heard any more."""
        me: list[object] = [object()]
        self._current = me[0]

        def delivered(parcel: Aggregate, offset: int | None) -> None:
            with self._state.lock:
                if self._current is me[0]:
                    self._failures_in_row = 0
                    self._figures.delivered(parcel, now_ms())
                    self._state.settling.delivered(parcel, offset)
                    self._state.reported.notify()

        def failed(parcel: Aggregate | None, failure: Failure, error: HeadraceError) -> None:
            with self._state.lock:
                if self._current is not me[0] or self._state.failure is not None:
                    return
                if failure is Failure.STOP:
                    self._state.locked_stop(error)
                    return
                if failure is Failure.TOO_LARGE and parcel is not None and self._state.settling.discard(parcel):
                    limit = self._state.limits.message_bytes_max
                    self._state.locked_fail([parcel], RecordTooLargeError(parcel.size_bytes, min(limit, parcel.size_bytes - 1)))
                self._broken = error
                self._state.work.notify()

        return delivered, failed

    def _new_client(self) -> Sender:
        delivered, failed = self._callbacks()
        limits = self._state.limits
        return Sender(self._connection, self._stream, limits.compression, limits.message_bytes_max, delivered, failed)

    def _replace_client(self) -> None:
        """Rule 5: every outstanding aggregate is unknown; a new client sends all again in sequence order."""
        state = self._state
        with state.lock:
            error, self._current = self._broken, object()
        self._client.close()
        self._failures_in_row += 1
        pause_s = min(0.05 * 2**self._failures_in_row, BACKOFF_S_MAX) * random.uniform(0.5, 1.0)
        with state.lock:
            unknown = state.settling.client_failed()
            state.stats.client_failures += 1
            self._client_failures.inc()
            if not state.closing:
                state.work.wait_for(lambda: state.closing or state.failure is not None, pause_s)
            self._broken = None
        log.warning("client failed (%s): %d aggregates are sent again by a new one", error, unknown)
        self._partitions.clear()
        self._client = self._new_client()
