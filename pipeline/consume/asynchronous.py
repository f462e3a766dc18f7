"""The consumer beside an event loop: its own work in a thread, the caller's coroutines in the loop."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TYPE_CHECKING

from pipeline.consume.pool import Handler
from pipeline.model.record import Record

if TYPE_CHECKING:
    from pipeline.consume.consumer import Consumer


AsyncHandler = Callable[[Record], Awaitable[object]]


async def run_async(handler: AsyncHandler, go: Callable[[Handler], int], stop: Callable[[], None]) -> int:
    """Run ``go`` (a blocking run) in a thread, with a handler that waits for the coroutine in this loop. A cancellation stops
    it, and waits until it has committed."""
    loop = asyncio.get_running_loop()

    async def handle(record: Record) -> None:
        await handler(record)

    def plain(record: Record) -> None:
        asyncio.run_coroutine_threadsafe(handle(record), loop).result()

    running = asyncio.ensure_future(asyncio.to_thread(go, plain))
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        stop()
        await running
        raise


async def iterate(consumer: Consumer) -> AsyncIterator[Record]:
    """As ``Consumer.__iter__``; fetching and committing do not block the event loop."""
    consumer._let_go()
    while not consumer._stop.is_set():
        item = await asyncio.to_thread(consumer._next, 1.0)
        if item is None:
            continue
        handled = 0
        records = item.unpacked.records
        try:
            for handled, record in enumerate(records):
                if time.monotonic() >= consumer._commit_at:
                    consumer._reading.done(item, handled)
                    await asyncio.to_thread(consumer._maybe_commit)
                if consumer._stop.is_set() or not item.track.live:
                    break
                yield record
            else:
                handled = len(records)
        finally:
            consumer._reading.done(item, handled)
            if handled < len(records):
                consumer._reading.put_back(item.track)
