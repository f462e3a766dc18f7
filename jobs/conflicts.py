"""Two writers of one Delta table: whoever commits second is refused, and may do the same again over what the first one wrote."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import TypeVar

log = logging.getLogger("headrace.jobs")
T = TypeVar("T")

TRIES_MAX = 5
"""A redrive or a compaction commits once in a while; who meets more conflicts than this runs beside a second job."""
PAUSE_S = 0.5


def again_on_conflict(work: Callable[[], T], what: str) -> T:
    """Do ``work``, which changes nothing when done twice, until no other commit comes in between; what it gave then. The last
    try's error is raised as it is."""
    for attempt in range(1, TRIES_MAX + 1):
        try:
            return work()
        except Exception as error:
            if attempt == TRIES_MAX or not is_conflict(str(error)):
                raise
            log.info("%s: another writer committed first: once more", what)
            time.sleep(PAUSE_S * attempt)
    raise AssertionError("unreachable")


def is_conflict(text: str) -> bool:
    """Whether an error of Delta says that another commit came first."""
    return any(sign in text for sign in ("DELTA_CONCURRENT", "DELTA_METADATA_CHANGED", "io.delta.exceptions.Concurrent"))
