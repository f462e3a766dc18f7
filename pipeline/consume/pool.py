"""The threads that call a handler: one record of a key at a time, different keys side by side, failed records again.

The reader's thread adds messages and asks how far they are; it never waits for a handler, so a handler that hangs keeps
neither the group's heartbeat nor other keys nor a stop from going on.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from pipeline.consume.counters import Counters
from pipeline.consume.keyed import KeyedTasks, Progress, Task
from pipeline.consume.tracks import Item
from pipeline.consume.unpack import Unpacked
from pipeline.errors import HandlerError, HeadraceError
from pipeline.model.record import Record
from pipeline.model.shards import Place
from pipeline.observe.tracing import within_trace

log = logging.getLogger("headrace.consume")
BACKOFF_S_FIRST, BACKOFF_S_MAX = 0.1, 10.0
Handler = Callable[[Record], object]
Bury = Callable[[Unpacked, Record, Exception, int, int], None]
OnFailure = Literal["dead_letter", "stop", "block_key"]


@dataclass(frozen=True, slots=True)
class Policy:
    """What becomes of a record whose handler raises: again ``retries`` times with backoff and jitter, then ``on_failure``."""

    retries: int
    on_failure: OnFailure


class Pool:
    """``bury(message, record, error, attempts, first_ms)`` keeps a record in the dead letters; it is called under a lock."""

    def __init__(self, handler: Handler, workers: int, policy: Policy, bury: Bury, counters: Counters) -> None:
        self._handler = within_trace(handler)
        self._policy = policy
        self._bury = bury
        self._counters = counters
        self._tasks = KeyedTasks(by_key=workers > 1)
        self._running: dict[Task, float] = {}
        self._condition = threading.Condition()
        self._bury_lock = threading.Lock()
        self._open: list[Progress] = []
        self._handled = 0
        self._closing = False
        self.failure: BaseException | None = None
        self._threads = [
            threading.Thread(target=self._work, name=f"headrace-handler-{number}", daemon=True) for number in range(workers)
        ]
        for thread in self._threads:
            thread.start()

    # -- the reader's thread ---------------------------------------------------------------------------------------------

    def add(self, item: Item, records: list[Record]) -> None:
        with self._condition:
            self._open.append(self._tasks.add(item, records))
            self._condition.notify_all()

    @property
    def records(self) -> int:
        """Records that were added and are not handled."""
        return self._tasks.waiting_records

    @property
    def handled(self) -> int:
        return self._handled

    def progress(self) -> list[Item]:
        """The messages of which more is handled than before; from now on each says how much (``done``). All of them do before
        the first is settled: that may commit, serve the group, and give the partition of another one up."""
        moved = []
        still = []
        for progress in self._open:
            before = progress.prefix
            if progress.advance() > before:
                progress.item.done = max(progress.item.done, progress.prefix)
                moved.append(progress.item)
            if progress.prefix < len(progress.flags) and progress.item.track.live:
                still.append(progress)
        self._open = still
        return moved

    def wait(self, timeout_s: float) -> None:
        """Until a task is through, or the time is over."""
        with self._condition:
            if not self._closing and self.failure is None:
                self._condition.wait(timeout_s)

    def rest(self, places: set[Place] | None, timeout_s: float) -> bool:
        """Drop what waits (of these partitions; None: of all) and wait for what runs there. False if something still runs."""
        deadline = time.monotonic() + timeout_s
        with self._condition:
            if places is None:
                self._closing = True
                self._condition.notify_all()
            else:
                self._tasks.drop(places, set(self._running))
                for task in self._running:
                    task.leaving |= task.place in places
            while any(places is None or task.place in places for task in self._running):
                left = deadline - time.monotonic()
                if left <= 0:
                    return False
                self._condition.wait(left)
        return True

    def longest_s(self) -> float:
        """How long the handler that runs longest has been at its record."""
        with self._condition:
            return max((time.monotonic() - since for since in self._running.values()), default=0.0)

    # -- handler threads ---------------------------------------------------------------------------------------------------

    def _work(self) -> None:
        while True:
            with self._condition:
                task = self._next_task()
                if task is None:
                    return
                self._running[task] = time.monotonic()
            again_at: float | None = None
            try:
                again_at = self._run(task)
            except BaseException as error:  # noqa: BLE001 - SystemExit too: the caller of run() has to see it
                with self._condition:
                    self.failure = self.failure or error
                    self._closing = True
            with self._condition:
                del self._running[task]
                if again_at is not None and not task.leaving:
                    self._tasks.again(task, again_at)
                elif task.at == len(task.records) or task.leaving:
                    self._tasks.finished(task)
                self._condition.notify_all()

    def _next_task(self) -> Task | None:
        while not self._closing:
            now = time.monotonic()
            task = self._tasks.take(now)
            if task is not None:
                return task
            due = self._tasks.due()
            self._condition.wait(None if due is None else max(0.0, due - now))
        return None

    def _run(self, task: Task) -> float | None:
        """Handle a task's records in order; returns when it has to be taken again after a failure."""
        while task.at < len(task.records) and not self._closing and not task.leaving:
            record = task.records[task.at]
            started = time.monotonic()
            self._running[task] = started
            if not task.attempts:
                task.first_ms = time.time_ns() // 1_000_000
            task.attempts += 1
            try:
                self._handler(record)
            except Exception as error:  # noqa: BLE001 - whatever the handler raises is the handler's; the record is kept
                pause_s = self._failed(task, record, error)
                if pause_s is not None:
                    return time.monotonic() + pause_s
            finally:
                self._counters.handler_took(time.monotonic() - started)
            self._passed(task)
        return None

    def _passed(self, task: Task) -> None:
        task.progress.flags[task.indices[task.at]] = 1
        task.at += 1
        task.attempts = 0
        with self._condition:
            self._tasks.waiting_records -= 1
            self._handled += 1

    def _failed(self, task: Task, record: Record, error: Exception) -> float | None:
        """Seconds after which to try again; None if the record is in the dead letters now."""
        policy = self._policy
        if task.attempts <= policy.retries or policy.on_failure == "block_key":
            log.info("handler failed (%s), attempt %d, %r", type(error).__name__, task.attempts, record)
            self._counters.retried()
            pause_s = min(BACKOFF_S_FIRST * float(1 << min(task.attempts - 1, 20)), BACKOFF_S_MAX)
            return pause_s * random.uniform(0.5, 1.0)
        if policy.on_failure == "stop":
            raise HandlerError(
                f"{record!r}: the handler raised {type(error).__name__}, {task.attempts} times: nothing from there on is "
                "committed. Correct the handler and start again, or let such records go with on_failure='dead_letter'"
            ) from error
        try:
            with self._bury_lock:
                self._bury(task.progress.item.unpacked, record, error, task.attempts, task.first_ms)
        except HeadraceError as problem:
            log.warning("%r is not in the dead letters yet: %s", record, problem)
            return BACKOFF_S_MAX
        return None
