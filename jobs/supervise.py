"""Keeping one query going: it starts again on what is known to be harmless, and stops with a clear sentence on all else.

    new partitions became readable      stop between micro-batches, start with them (the same Spark checkpoint)
    SPARK-55271                         Spark 4.1.1 fails once, after committing, on every recovery of an unfinished micro-batch
    a source table gained columns       Delta's stream ends once; it goes on with the new columns
    maintenance rewrote what it read    try the micro-batch again: rows did not change
    RetryableError, broker away         try again with growing pauses; in available-now for at most RETRY_BOUNDED_S
    anything else                       StopError
"""

from __future__ import annotations

import logging
import random
import threading
import time
from enum import Enum
from typing import Protocol

from pyspark.errors import StreamingQueryException
from pyspark.sql.streaming.query import StreamingQuery

from jobs.commits import MAINTENANCE
from jobs.conflicts import is_conflict
from jobs.mode import Mode
from jobs.object_store import explain
from pipeline import metrics
from pipeline.errors import BrokerUnavailableError, HeadraceError, RetryableError, StopError, TableError, TrimmedError

log = logging.getLogger("headrace.jobs")

RETRY_BOUNDED_S = 120.0
PAUSE_MAX_S = 30.0
STOP_WAIT_S = 120.0
POLL_S = 0.1
KNOWN_FAILURES_MAX = 3
"""Restarts on a known failure in a row, without a micro-batch committed between them, before it counts as unknown."""


class Job(Protocol):
    """A query that can be started again."""

    name: str
    failure: HeadraceError | None
    stopping: threading.Event
    wants_restart: threading.Event

    def start(self, mode: Mode) -> StreamingQuery: ...

    def has_more(self) -> bool:
        """After an available-now query ended well: whether another would find more."""
        ...


class Reaction(Enum):
    RESTART = "start again at once"
    RETRY = "start again after a pause"
    STOP = "stop"


def reaction(text: str, failure: HeadraceError | None) -> Reaction:
    """How to go on after a query ended with an error. ``text`` is Spark's; ``failure`` what our own code raised, if it did."""
    if isinstance(failure, RetryableError):
        return Reaction.RETRY
    if failure is not None:
        return Reaction.STOP
    if "NullPointerException" in text and "KafkaMicroBatchStream" in text and "metrics" in text:  # SPARK-55271
        return Reaction.RESTART
    if "DELTA_SCHEMA_CHANGED" in text:
        return Reaction.RESTART
    if any(sign in text for sign in _BROKER_AWAY) or _met_maintenance(text) or isinstance(explain(text), RetryableError):
        return Reaction.RETRY
    return Reaction.STOP


def _met_maintenance(text: str) -> bool:
    """Whether a write lost against a commit that changed files or properties and no rows; another writer is another matter."""
    return is_conflict(text) and (MAINTENANCE in text or "concurrent OPTIMIZE" in text or '"operation":"OPTIMIZE"' in text)


_BROKER_AWAY = (
    "org.apache.kafka.common.errors.TimeoutException",
    "org.apache.kafka.common.errors.DisconnectException",
    "org.apache.kafka.common.errors.NotLeaderOrFollowerException",
    "org.apache.kafka.common.errors.LeaderNotAvailableException",
    "org.apache.kafka.common.errors.CoordinatorNotAvailableException",
)


def supervise(job: Job, mode: Mode, stop: threading.Event) -> None:
    """Run a job until it is through (available-now) or ``stop`` is set; then it ends between micro-batches.

    Raises StopErrors at once, and RetryableErrors in available-now after trying for RETRY_BOUNDED_S.
    """
    retrying_since: float | None = None
    pause_s, known_failures, done = 0.5, 0, -1
    while not stop.is_set():
        error: Exception | None = None
        query: StreamingQuery | None = None
        try:
            query = job.start(mode)
            _watch(job, query, stop)
        except RetryableError as failure:
            job.failure, error = failure, failure
        except StreamingQueryException as failure:
            error = failure
        if error is None:
            if stop.is_set() or (mode.is_bounded and not job.has_more()):
                return
            continue
        if stop.is_set() and "InterruptedError" in str(error):
            return
        metrics.TABLE_FAILURES.labels(job.name).inc()
        newest = _committed(query)
        if newest > done:
            done, retrying_since, pause_s, known_failures = newest, None, 0.5, 0
        what = reaction(_full_text(error, query), job.failure)
        if what is Reaction.RESTART and (known_failures := known_failures + 1) <= KNOWN_FAILURES_MAX:
            log.info("%s: starting again after a known failure of Spark", job.name)
            continue
        if what is Reaction.RETRY:
            retrying_since = retrying_since or time.monotonic()
            if not mode.is_bounded or time.monotonic() - retrying_since < RETRY_BOUNDED_S:
                log.warning("%s: trying again in %.1f s: %s", job.name, pause_s, job.failure or _first_line(error))
                stop.wait(pause_s * random.uniform(0.7, 1.0))
                pause_s = min(2 * pause_s, PAUSE_MAX_S)
                continue
        raise _final(job, error) from error


def _watch(job: Job, query: StreamingQuery, stop: threading.Event) -> None:
    """Until the query ends by itself, or has to be stopped. Raises StreamingQueryException if it failed."""
    while not query.awaitTermination(POLL_S):  # type: ignore[arg-type]  # seconds; a fraction is fine
        if stop.is_set() or job.wants_restart.is_set():
            _stop_between(job, query)
            return


def _stop_between(job: Job, query: StreamingQuery) -> None:
    """Stop while no micro-batch is under way: a query waits for its next trigger, or refuses the next micro-batch.

    Whatever is cut off nevertheless is planned again at the next start, with the same offsets.
    """
    job.stopping.set()
    try:
        deadline = time.monotonic() + STOP_WAIT_S
        while query.isActive and query.status["isTriggerActive"] and time.monotonic() < deadline:
            time.sleep(POLL_S / 4)
        query.stop()
        query.awaitTermination()
    except StreamingQueryException as error:
        if "InterruptedError" not in str(error):
            raise
    finally:
        job.stopping.clear()


def _committed(query: StreamingQuery | None) -> int:
    last = query.lastProgress if query is not None else None
    return int(last["batchId"]) if last else -1


def _full_text(error: Exception, query: StreamingQuery | None) -> str:
    """The error with the JVM's stack: the known failures are told by where they happen."""
    text = str(error)
    try:
        found = query._jsq.exception() if query is not None else None
        if found is not None and found.isDefined():
            text += "\n" + found.get().toString()
            cause = found.get().cause()
            while cause is not None:
                text += "\n" + cause.toString() + "\n" + "\n".join(str(frame) for frame in list(cause.getStackTrace())[:12])
                cause = cause.getCause()
    except Exception as failure:  # noqa: BLE001 - it only helps to explain another error
        log.debug("no stack of the failed query: %s", failure)
    return text


def checkpoint_replaced(table: str) -> TableError:
    """For a query under which somebody put another Spark checkpoint, or took it away."""
    return TableError(
        f"the Spark checkpoint of {table} was replaced or removed while its query was running, which has stopped now, and wrote "
        f"nothing after its last commit: run `headrace table rebuild-checkpoint {table}` (again), then start it"
    )


def _final(job: Job, error: Exception) -> HeadraceError:
    if job.failure is not None:
        return job.failure
    text = str(error)
    if "KAFKA_DATA_LOSS" in text or "OffsetOutOfRange" in text:
        what = _first_line(error).rpartition("failOnDataLoss to false.")[2].strip()  # which is no advice of ours
        return TrimmedError(
            f"{job.name}: Kafka no longer has records that were not read yet ({what}). Nothing was skipped and nothing after the "
            "last commit was written: restore them, or make the table anew to accept the loss"
        )
    if any(sign in text for sign in _BROKER_AWAY):
        return BrokerUnavailableError(f"{job.name}: the Kafka broker does not answer: is it up? (`headrace status`)")
    if (meant := explain(text)) is not None:
        return type(meant)(f"{job.name}: {meant}")
    if "does not exist" in text and ("/offsets " in text or "/commits " in text):
        return checkpoint_replaced(job.name)
    if any(sign in text for sign in ("DELTA_CONCURRENT", "CONCURRENT_STREAM_LOG_UPDATE", "CONCURRENT_QUERY")):
        return TableError(f"{job.name}: another process writes to the same table: stop one of the two, then start again")
    if "DeltaIllegalStateException" in text or "DELTA_" in text:
        return TableError(f"{job.name}: Delta refuses: {_first_line(error)}")
    return StopError(f"{job.name}: the query failed and nothing after its last commit was written: {_first_line(error)}")


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return next((line for line in lines if not line.startswith(("at ", "==="))), type(error).__name__)[:600]
