"""Settling in time: takes barriers for what was delivered, acknowledges, and follows the control log.

Runs on its own thread. What a barrier means for an aggregate is pipeline/model/settling.py's; this one brings the maps.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable

from pipeline import metrics
from pipeline.errors import FencedError, HeadraceError, RetryableError
from pipeline.model.shards import ShardMap
from pipeline.produce.salting import Salting
from pipeline.produce.state import ProducerState
from pipeline.reshard.control_log import ControlLog

log = logging.getLogger("headrace.produce")
FOLLOW_S = 1.0  # how often an idle producer looks for reshards
HOLD_POLL_S = 0.02  # how often the outcome of a pending reshard is asked for
FINISH_AFTER_S = 0.25  # then anybody may finish it (DESIGN.md §3), plus jitter
RETRY_S = 0.5
STUCK_S = 2.0  # without a delivery for so long: were the topics deleted? The client alone would wait for half a minute
# While nobody waits for a receipt, barriers are taken this far apart: each costs a request and the callers' interpreter.
PAUSE_LINGERS = 0.2
PAUSE_MS_MAX = 20


class SettleLoop:
    """The settler's thread, which owns ``control`` from ``start`` on. ``finish`` is called, on a thread
    of its own, when a reshard has been pending for too long."""

    def __init__(
        self,
        state: ProducerState,
        control: ControlLog,
        producer: str,
        incarnation: int,
        finish: Callable[[], None],
        salting: Salting | None = None,
    ) -> None:
        self._salting = salting
        self._state = state
        self._control = control
        self._producer = producer
        self._incarnation = incarnation
        self._finish = finish
        self._barrier_seconds = metrics.BARRIER_SECONDS.labels(control.stream.name)
        self._void_resent = metrics.VOID_RESENT.labels(control.stream.name)
        self._strict = state.limits.acks == "strict"
        self._pending_since: float | None = None
        self._followed_at = 0.0
        self._barrier_at = 0.0
        self._progress_at = time.monotonic()
        self._pause_s = min(state.packer.linger_ms * PAUSE_LINGERS, PAUSE_MS_MAX) / 1000
        self._thread = threading.Thread(target=self._run, name="headrace-settle", daemon=True)
        self._finisher = threading.Thread(target=self._finish, name="headrace-finish")

    def start(self) -> None:
        self._thread.start()

    def join(self, timeout_s: float) -> None:
        self._thread.join(timeout_s)

    def _run(self) -> None:
        try:
            while self._wait():
                try:
                    self._round()
                except RetryableError as error:
                    log.warning("no barrier: %s", error)
                    time.sleep(RETRY_S)
        except Exception as error:  # a bug of ours must fail the receipts, not leave them waiting
            if not isinstance(error, HeadraceError):
                log.exception("the settling thread failed")
            failure = error if isinstance(error, HeadraceError) else HeadraceError(f"settling failed: {error!r}")
            with self._state.lock:
                self._state.stats.fenced += isinstance(failure, FencedError)
                self._state.locked_stop(failure)
        finally:
            self._control.close()  # here, since a barrier may still wait for a broker when the producer is closed

    def _wait(self) -> bool:
        """Wait for deliveries, or until it is time to look at the control log. False when there is nothing more to do."""
        state = self._state
        with state.lock:
            if self._pending_since is None and not state.settling.waits_for_barrier and not self._over():
                state.reported.wait(FOLLOW_S)
            pause_s = self._barrier_at + self._pause_s - time.monotonic()
            if pause_s > 0 and not state.settled.urgent and not self._over():
                state.settled.hurry.wait(pause_s)  # one barrier settles all that is delivered until then
            self._barrier_at = time.monotonic()
            return not self._over()

    def _over(self) -> bool:
        return self._state.failure is not None or (self._state.closing and self._state.locked_idle)

    def _round(self) -> None:
        state = self._state
        with state.lock:
            needed, tick = state.locked_begin_round()
        self._check_progress(needed)
        shard_map = self._barrier() if needed and self._strict else self._follow(needed)
        self._check_fence(shard_map)
        with state.lock:
            state.stats.barriers += needed and self._strict
            state.locked_end_round(shard_map, needed, tick)
            self._void_resent.inc(state.settling.void_records - state.stats.void_resent)
            state.stats.void_resent = state.settling.void_records
            state.locked_wake_sender()
        if self._salting is not None:
            self._salting.look(self._control, shard_map)
        self._hold(shard_map)

    def _barrier(self) -> ShardMap:
        began = time.monotonic()
        shard_map = self._control.barrier()
        self._barrier_seconds.observe(time.monotonic() - began)
        return shard_map

    def _follow(self, busy: bool) -> ShardMap:
        """The map without a barrier. With ``acks: relaxed`` a busy producer looks only every ``FOLLOW_S``."""
        now = time.monotonic()
        if busy and now < self._followed_at + FOLLOW_S:
            return self._control.map
        self._followed_at = now
        return self._control.refresh()

    def _hold(self, shard_map: ShardMap) -> None:
        """A reshard is pending: ask for its outcome often, and bring it about when nobody else does."""
        now = time.monotonic()
        if not shard_map.pending:
            self._pending_since = None
            return
        if self._pending_since is None:
            self._pending_since = now
            self._finish_at = now + FINISH_AFTER_S * random.uniform(1.0, 2.0)
        elif now > self._finish_at and not self._finisher.is_alive():
            self._finish_at = now + FINISH_AFTER_S * random.uniform(1.0, 2.0)
            # On a thread of its own: shards that are not resharded do not wait for it.
            self._finisher = threading.Thread(target=self._finish, name="headrace-finish", daemon=True)
            self._finisher.start()
        with self._state.lock:
            self._state.reported.wait(HOLD_POLL_S)
            if self._state.settling.waits_for_barrier:
                self._state.stats.hold_ms += int((time.monotonic() - now) * 1000)

    def _check_progress(self, delivered: bool) -> None:
        """Raises StreamConflictError where nothing is delivered since a topic is not there any more."""
        now = time.monotonic()
        with self._state.lock:
            if delivered or not self._state.settling.under_way:
                self._progress_at = now
        if now > self._progress_at + STUCK_S:
            self._progress_at = now
            self._control.check_topic_ids()

    def _check_fence(self, shard_map: ShardMap) -> None:
        claim = shard_map.claims.get(self._producer)
        if claim is not None and claim.incarnation > self._incarnation:
            raise FencedError(
                f"a newer producer {self._producer!r} (incarnation {claim.incarnation}) runs on stream "
                f"{self._control.stream.name!r}; this one ({self._incarnation}) stops. Give each live producer its own name"
            )
