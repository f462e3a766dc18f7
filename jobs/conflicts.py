"""Two writers of one Delta table: whoever commits second is refused, and may do the same again over what the first one wrote."""

from __future__ import annotations

import logging
from collections.abc import Callable

log = logging.getLogger("headrace.jobs")

TRIES_MAX = 5
"""A redrive or a compaction commits once in a while; who meets more conflicts than this runs beside a second job."""


def again_on_conflict(work: Callable[[], None], what: str) -> None:
    """Do ``work``, which changes nothing when done twice, until no other commit comes in between. The last try's error is
    raised as it is."""
    for attempt in range(1, TRIES_MAX + 1):
        try:
            work()
            return
        except Exception as error:
            if "DELTA_CONCURRENT" not in str(error) or attempt == TRIES_MAX:
                raise
            log.info("%s: another writer committed first: once more", what)
