"""The loop of ``Consumer.run``: fetch, hand to the pool, commit what is through, stop in time."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from pipeline.consume.pool import Pool

if TYPE_CHECKING:
    from pipeline.consume.consumer import Consumer

IN_FLIGHT_MAX = 10_000
POLL_S = 0.1
FULL_WAIT_S = 0.05


def run(consumer: Consumer, pool: Pool, *, max_records: int | None, in_flight_max: int, stop_timeout_s: float) -> int:
    """See ``Consumer.run``. Whatever ends it, what is handled is committed."""
    reading = consumer._reading
    stopped = consumer._stop
    taken = 0
    try:
        with OnSigterm(consumer.stop):
            while not stopped.is_set() and pool.failure is None and (max_records is None or pool.handled < max_records):
                for item in pool.progress():
                    reading.done(item, item.done)
                consumer._maybe_commit()
                if pool.records >= in_flight_max or taken == max_records:
                    reading.hold(True)
                    reading.idle()
                    pool.wait(FULL_WAIT_S)
                    continue
                reading.hold(False)
                found = consumer._next(POLL_S)
                if found is not None:
                    records = found.unpacked.records
                    if max_records is not None:
                        records = records[: max_records - taken]
                    taken += len(records)
                    pool.add(found, records)
    finally:
        pool.rest(None, stop_timeout_s)
        for item in pool.progress():
            reading.done(item, item.done)
        reading.hold(False)
        for track in list(reading.tracks.values()):
            reading.put_back(track)
        consumer.commit()
    if pool.failure is not None:
        raise pool.failure
    return pool.handled


class OnSigterm:
    """Calls a function on SIGTERM while entered, where signals can be caught (the main thread)."""

    def __init__(self, function: Callable[[], None]) -> None:
        self._function = function
        self._previous: object = None

    def __enter__(self) -> None:
        if threading.current_thread() is threading.main_thread():
            self._previous = signal.signal(signal.SIGTERM, lambda *_: self._function())

    def __exit__(self, *_: object) -> None:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, self._previous)  # type: ignore[arg-type]
