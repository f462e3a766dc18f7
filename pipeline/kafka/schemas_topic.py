"""The compacted topic that holds a registry's state: one partition, read from its beginning, written by turns.

Writers take turns by Kafka's own fencing: all of them use one transactional id. Taking the turn (``init_transactions``)
makes the broker refuse everything that an earlier holder still sends, however late it wakes. So between reading the topic
to its end and committing, nobody else can have written; if somebody took the turn meanwhile, the commit fails, nothing of
it counts, and the decision is made again on the new state. See docs/adr/0002-registry-writes-through-the-topic.md.

Thread safety: ``refresh`` and ``write`` may be called from any thread; ``apply`` is called on the reading thread only.
"""

from __future__ import annotations

import contextlib
import logging
import random
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from pipeline.errors import BrokerUnavailableError, ClosedError, HeadraceError, RecordTooLargeError
from pipeline.kafka.schemas_admin import QUIET, describe, end_offset, ensure_topic
from pipeline.kafka.schemas_reader import LogRecord, SchemasReader, open_consumer, sort

log = logging.getLogger("headrace.registry.topic")

# A writer that dies inside a transaction hides what follows it for at most this long.
TRANSACTION_TIMEOUT_MS: Final = 10_000
_LOST_TURN: Final = frozenset({KafkaError._FENCED, KafkaError.PRODUCER_FENCED, KafkaError.INVALID_PRODUCER_EPOCH})


class TurnLostError(HeadraceError):
    """Another registry took the turn; what was being written does not count. Decide again."""


class SchemasTopic:
    """See the module. ``settings`` are librdkafka's (bootstrap.servers, security); ``noop_key`` marks a record of no effect."""

    def __init__(self, settings: Mapping[str, Any], topic: str, *, noop_key: bytes, timeout_s: float = 15.0) -> None:
        self._settings = dict(settings)
        self._topic = topic
        self._noop_key = noop_key
        self._timeout_s = timeout_s
        self._replicated = False
        self._stopping = threading.Event()
        self._refreshing = threading.Lock()
        self._refreshed_at = float("-inf")  # guarded by _refreshing: when the last finished refresh began
        self._writing = threading.Lock()
        self._turn: Producer | None = None  # guarded by _writing
        self._scanned_offset = 0  # guarded by _writing: uncommitted records before it were shown to observe
        self._noops: Producer | None = None
        self._reader: SchemasReader | None = None
        self.turns_taken = 0
        self.turns_lost = 0

    @property
    def failure(self) -> str | None:
        """Why the topic is not read any more; None while it is."""
        return self._reader.failure if self._reader is not None else None

    # --- reading ---

    def open(self, apply: Callable[[Sequence[LogRecord]], None]) -> None:
        """Creates the topic where there is none, applies all of it and goes on applying. Blocks until the end was reached.

        Raises ``BrokerUnavailableError`` (call again), ``StopError`` if the topic is not one that can hold schemas.
        """
        ensure_topic(self._settings, self._topic, self._timeout_s)
        self._replicated = describe(self._settings, self._topic, self._timeout_s).replicas > 1
        if self._noops is None:
            self._noops = Producer({**self._settings, **QUIET, "enable.idempotence": True, "acks": "all", "linger.ms": 0,
                                    "delivery.timeout.ms": int(self._timeout_s * 1000)})  # fmt: skip
        if self._reader is None:
            self._reader = SchemasReader(self._settings, self._topic, apply, self._timeout_s)
        self.refresh()

    def refresh(self) -> None:
        """Returns when everything that was acknowledged before the call is applied. Calls at the same time share the work.

        Raises ``BrokerUnavailableError`` if that takes longer than the timeout.
        """
        asked_at = time.monotonic()
        with self._refreshing:
            if self._refreshed_at >= asked_at:
                return
            began_at = time.monotonic()
            self._wait_applied(self._barrier(), began_at + self._timeout_s)
            self._refreshed_at = began_at

    def _wait_applied(self, offset: int, deadline: float) -> None:
        if self._reader is None:
            raise ClosedError("the topic is not open")
        self._reader.wait_applied(offset, deadline)

    def _barrier(self) -> int:
        """An offset that is not below the end of what was acknowledged so far."""
        if not self._replicated:
            return end_offset(self._settings, self._topic, self._timeout_s)
        # A deposed leader may still answer with its old end offset; a record acknowledged by all in-sync replicas cannot lie.
        return self._noop() + 1

    def _noop(self) -> int:
        """Appends a record of no effect, as Confluent's registry does, and returns its offset."""
        if self._noops is None:
            raise ClosedError("the topic is not open")
        delivered: list[tuple[KafkaError | None, int | None]] = []
        report = lambda error, message: delivered.append((error, message.offset()))  # noqa: E731
        self._noops.produce(self._topic, None, self._noop_key, partition=0, on_delivery=report)
        self._noops.flush(self._timeout_s)
        error, offset = delivered[0] if delivered else (None, None)
        if error is not None or offset is None or offset < 0:
            reason = error.str() if error else "no answer in time"
            raise BrokerUnavailableError(f"the topic {self._topic} takes no record: {reason}")
        return offset

    # --- writing ---

    def write(
        self, decide: Callable[[], Sequence[tuple[bytes, bytes | None]]], observe: Callable[[LogRecord], None] = lambda _: None
    ) -> None:
        """Writes what ``decide`` returns, all or nothing, and returns when it was read back and applied.

        ``decide`` is called with the state at the topic's end, and again if another registry wrote first; it may return
        nothing, or raise, and then nothing is written. ``observe`` is shown every record of the log, also those that do not
        count, before the first decision of a turn. Raises ``BrokerUnavailableError``: the outcome may be unknown; deciding
        again is safe, because it starts from what the topic then holds. ``RecordTooLargeError``: nothing was written.
        """
        deadline = time.monotonic() + self._timeout_s
        with self._writing:
            last_offset = -1
            for attempt in range(1_000):
                try:
                    turn = self._take_turn(deadline, observe)
                    self.refresh()
                    records = decide()
                    if not records:
                        return
                    last_offset = self._commit(turn, records, deadline)
                    break
                except TurnLostError:
                    self.turns_lost += 1
                    self._drop_turn()
                    if time.monotonic() >= deadline:
                        raise BrokerUnavailableError("other registries kept writing first: try again") from None
                    # Two registries that fence each other at the same pace would never get anything written.
                    self._stopping.wait(random.uniform(0, min(0.4, 0.01 * 2**attempt)))
            if last_offset < 0:
                self.refresh()
            else:
                self._wait_applied(last_offset + 1, deadline + self._timeout_s)
            self._cover_marker()

    def _cover_marker(self) -> None:
        """Appends a record after the transaction's marker, which is in the log once its records can be read.

        A marker is never delivered, and a registry that waits for the log's last offset (Karapace's does) would wait for
        ever if that were one.
        """
        try:
            self._noop()
        except BrokerUnavailableError as error:
            log.warning("%s was written, but its last record is a transaction's marker: %s", self._topic, error)

    def _take_turn(self, deadline: float, observe: Callable[[LogRecord], None]) -> Producer:
        if self._turn is not None:
            return self._turn
        turn = Producer(
            {
                **self._settings,
                **QUIET,
                "transactional.id": f"{self._topic}-writer",
                "transaction.timeout.ms": TRANSACTION_TIMEOUT_MS,
                "acks": "all",
                "linger.ms": 0,
                "message.max.bytes": 4_000_000,  # the broker's limit is the one that counts
            }
        )
        try:
            turn.init_transactions(max(0.1, deadline - time.monotonic()))
        except KafkaException as error:
            raise _translate(error, self._topic) from error
        self.turns_taken += 1
        end = self._barrier()
        self._scan(end, deadline, observe)
        self._turn = turn
        return turn

    def _scan(self, end: int, deadline: float, observe: Callable[[LogRecord], None]) -> None:
        """Shows all records up to ``end``, also those of transactions that were given up.

        A reader that takes uncommitted records (Confluent's and Karapace's registries do) sees those; an id that appears in
        one must not be given to another schema.
        """
        if self._scanned_offset >= end:
            return
        consumer = open_consumer(self._settings, self._topic, "read_uncommitted", self._scanned_offset)
        try:
            reached = 0
            while reached < end:
                if time.monotonic() >= deadline:
                    raise BrokerUnavailableError(f"the topic {self._topic} was not read in time: check the broker")
                records, seen = sort(self._topic, consumer.consume(2_000, 0.05))
                for record in records:
                    observe(record)
                reached = max(reached, seen)
            self._scanned_offset = end
        finally:
            consumer.close()

    def _drop_turn(self) -> None:
        if self._turn is not None:
            self._turn.purge()
            self._turn = None

    def _commit(self, turn: Producer, records: Sequence[tuple[bytes, bytes | None]], deadline: float) -> int:
        """Writes all or nothing and returns the offset of the last record, -1 if it was not told."""
        refused: list[KafkaError] = []
        offsets = [-1]

        def report(error: KafkaError | None, message: Message) -> None:
            if error is not None:
                refused.append(error)
            else:
                offset = message.offset()
                offsets.append(-1 if offset is None else offset)

        try:
            turn.begin_transaction()
            for key, value in records:
                turn.produce(self._topic, value, key, partition=0, on_delivery=report)
            while True:
                try:
                    turn.commit_transaction(max(0.1, deadline - time.monotonic()))
                    return max(offsets)
                except KafkaException as error:
                    if not error.args[0].retriable() or time.monotonic() >= deadline:
                        raise
        except KafkaException as error:
            code = error.args[0].code()
            size = max(len(key) + len(value or b"") for key, value in records)
            if KafkaError.MSG_SIZE_TOO_LARGE in (code, *(one.code() for one in refused)):
                self._give_up(turn)
                limit = describe(self._settings, self._topic, self._timeout_s).message_bytes_max
                raise RecordTooLargeError(size, limit) from error
            if code in _LOST_TURN or error.args[0].fatal():
                raise TurnLostError(str(error.args[0].str())) from error
            # Whether it was committed is not known. Taking the turn anew settles it: what is open then is aborted.
            self._drop_turn()
            raise _translate(error, self._topic) from error

    def _give_up(self, turn: Producer) -> None:
        """Ends a transaction of which the broker refused a record. The client goes too: its next one would find a gap in
        the sequence numbers."""
        with contextlib.suppress(KafkaException):  # taking the turn anew aborts it as well
            turn.abort_transaction(self._timeout_s)
        self._drop_turn()

    def close(self) -> None:
        """Stops reading. Waiting calls end with ``ClosedError``."""
        self._stopping.set()
        if self._reader is not None:
            self._reader.close()
        if self._writing.acquire(timeout=self._timeout_s):
            self._drop_turn()
            self._noops = None
            self._writing.release()


def _translate(error: KafkaException, topic: str) -> HeadraceError:
    cause: KafkaError = error.args[0]
    if cause.code() in _LOST_TURN:
        return TurnLostError(cause.str())
    return BrokerUnavailableError(f"the topic {topic} could not be written: {cause.str()}")
