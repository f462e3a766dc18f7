"""Expiry: a record that waited with us for too long fails, and nothing of its key range passes it in silence.

It counts only until a record is first handed to the Kafka client: from then on it may be in the log, and is sent until its
outcome is known. With ``on_expiry: fail`` all that waits behind an expired record in its shard fails with it: whoever puts
the failed ones again, in order, keeps the order. With ``dead_letter`` the expired aggregates alone are taken aside, written
to the stream's dead letters, and then fail; the others go on.
"""

from __future__ import annotations

import logging
import threading
from dataclasses import replace

from pipeline.config import Connection, StreamConfig
from pipeline.deadletter.letters import DeadLetter, DeadLetters
from pipeline.errors import HeadraceError, RecordExpiredError, RetryableError
from pipeline.model.stamp import STAMP_HEADER, encode_stamp
from pipeline.produce.aggregate import Aggregate
from pipeline.produce.stamping import Stamper, message_of
from pipeline.produce.state import ProducerState, now_ms

log = logging.getLogger("headrace.produce")
RETRY_S = 1.0


def expired_error(aggregate: Aggregate, now: int, expiry_s: float, where: str = "") -> RecordExpiredError:
    waited_s = (now - aggregate.created_ms) / 1000
    return RecordExpiredError(
        f"the record waited in the producer for {waited_s:.1f} s, longer than its expiry of {expiry_s:g} s, and was not "
        f"sent{where}: check the broker, or raise expiry_s"
    )


def locked_expire(state: ProducerState, now: int) -> None:
    """Fail, or take aside, what has waited for too long. Called by the sender before it takes what it sends."""
    expiry_s = state.limits.expiry_s
    if expiry_s is None:
        return
    oldest_ms = now - expiry_s * 1000
    aside = state.limits.on_expiry == "dead_letter"
    state.locked_enqueue(state.packer.due(int(oldest_ms) + state.packer.linger_ms - 1))
    expired, behind = state.settling.expire(lambda one: not one.handed_over and one.created_ms < oldest_ms, alone=aside)
    if not expired:
        return
    state.locked_count_expired(sum(aggregate.count for aggregate in expired))
    if aside:
        state.aside += expired
        state.put_aside.notify()
        return
    shards = {aggregate.shard for aggregate in expired}
    behind += state.packer.seal(shards)
    for aggregate in expired:
        state.locked_fail([aggregate], expired_error(aggregate, now, expiry_s))
    if behind:
        text = "an earlier record of its key range expired before it was sent, and this one must not pass it"
        state.locked_fail(behind, RecordExpiredError(f"{text}: put all that failed again, in their order"))


class ExpiredLoop:
    """Writes what was taken aside to the dead letters, on a thread of its own, since the broker may not answer."""

    def __init__(
        self, state: ProducerState, connection: Connection, stream: StreamConfig, schema_id: int, producer: str, incarnation: int
    ) -> None:
        self._state = state
        self._connection = connection
        self._stream = stream
        self._schema_id = schema_id
        self._producer = producer
        self._stamper = Stamper(producer, incarnation)
        self._letters: DeadLetters | None = None
        self._thread = threading.Thread(target=self._run, name="headrace-expired", daemon=True)

    def start(self) -> None:
        if self._state.limits.on_expiry == "dead_letter" and self._state.limits.expiry_s is not None:
            self._thread.start()

    def _run(self) -> None:
        state = self._state
        try:
            while True:
                with state.lock:
                    while not state.aside:
                        if state.failure is not None or (state.closing and state.locked_idle):
                            return
                        state.put_aside.wait(RETRY_S)
                    aggregate = state.aside[0]
                    content = aggregate.entries.content()
                self._write(aggregate, message_of(self._schema_id, aggregate.count, content))
        except Exception as error:  # a bug of ours must fail the receipts, not leave them waiting
            log.exception("the thread of expired records failed")
            failure = error if isinstance(error, HeadraceError) else HeadraceError(f"dead letters failed: {error!r}")
            with state.lock:
                state.locked_stop(failure)
        finally:
            if self._letters is not None:
                self._letters.close()

    def _write(self, aggregate: Aggregate, message: bytes) -> None:
        state, now = self._state, now_ms()
        expiry_s = state.limits.expiry_s or 0.0
        error = expired_error(aggregate, now, expiry_s, where="; it is in the dead letters")
        shard = state.settled.shard_map.shards[aggregate.shard]
        letter = DeadLetter(
            topic=shard.topic,
            partition=shard.partition,
            offset=-1,
            index=-1,
            error=type(error).__name__,
            text=str(expired_error(aggregate, now, expiry_s)),
            attempts=0,
            first_ms=aggregate.created_ms,
            last_ms=now,
            schema_id=self._schema_id,
            producer=self._producer,
            seq=aggregate.first_seq,
            shard=aggregate.shard,
        )
        # Not in the chain of the shard's stamps: it was never sent there.
        stamp = encode_stamp(replace(self._stamper.stamp(aggregate, now), previous_seq=-1))
        try:
            self._letters = self._letters or DeadLetters(self._connection, self._stream.dead_topic)
            self._letters.put(letter, aggregate.shard.encode(), message, [(STAMP_HEADER, stamp)])
        except RetryableError as unavailable:
            log.warning("expired records wait for the dead letters: %s", unavailable)
            with state.lock:
                if state.failure is None:
                    state.put_aside.wait(RETRY_S)
            return
        with state.lock:
            if state.aside and state.aside[0] is aggregate:  # else the producer was stopped meanwhile
                del state.aside[0]
                state.locked_fail([aggregate], error)
