"""Awaiting: receipts and room in the buffer, for coroutines. The threads that settle ring; the event loop looks."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from time import monotonic
from weakref import WeakKeyDictionary

from pipeline.errors import BufferFullError
from pipeline.model.record import Receipt
from pipeline.produce.receipt import PendingReceipt, Settled


class _Waiting:
    """Who waits on one event loop."""

    def __init__(self) -> None:
        self.turn = asyncio.Lock()  # fair: those that wait for room keep their order
        self.receipts: dict[asyncio.Future[None], PendingReceipt] = {}
        self.any: list[asyncio.Future[None]] = []
        self.rung = False


class Awaiting:
    """Of one producer. Coroutines of several event loops may use it."""

    def __init__(self, settled: Settled, buffer_full: Callable[[], BufferFullError]) -> None:
        self._settled = settled
        self._buffer_full = buffer_full
        self._loops: WeakKeyDictionary[asyncio.AbstractEventLoop, _Waiting] = WeakKeyDictionary()
        settled.ring = self._locked_ring

    @asynccontextmanager
    async def turn(self, deadline: float) -> AsyncIterator[None]:
        """Wait until it is this coroutine's turn to take room. Raises BufferFullError at the deadline (monotonic)."""
        turn = self._here().turn
        try:
            async with asyncio.timeout(deadline - monotonic()):
                await turn.acquire()
        except TimeoutError:
            raise self._buffer_full() from None
        try:
            yield
        finally:
            turn.release()

    async def settled(self, receipt: PendingReceipt) -> Receipt:
        """Wait until the record is acknowledged. Raises what it failed with."""
        waiting, future = self._here(), asyncio.get_running_loop().create_future()
        waiting.receipts[future] = receipt
        try:
            if not receipt.done():  # what was settled before it was in the dictionary did not ring
                await future
        finally:
            waiting.receipts.pop(future, None)
        return receipt.result(0)

    async def woken(self, timeout_s: float) -> None:
        """Wait until something was settled, at most for so long."""
        waiting, future = self._here(), asyncio.get_running_loop().create_future()
        waiting.any.append(future)
        with suppress(TimeoutError):
            await asyncio.wait_for(future, timeout_s)

    def _here(self) -> _Waiting:
        loop = asyncio.get_running_loop()
        with self._settled.condition:
            waiting = self._loops.get(loop)
            if waiting is None:
                waiting = self._loops[loop] = _Waiting()
            return waiting

    def _locked_ring(self) -> None:
        for loop, waiting in list(self._loops.items()):
            if not waiting.rung and not loop.is_closed():
                waiting.rung = True
                with suppress(RuntimeError):  # the loop was closed just now: nobody waits there
                    loop.call_soon_threadsafe(self._look, waiting)

    def _look(self, waiting: _Waiting) -> None:
        with self._settled.condition:
            waiting.rung = False
            ready = [future for future, receipt in waiting.receipts.items() if receipt.locked_done()]
        ready += waiting.any
        waiting.any = []
        for future in ready:
            if not future.done():
                future.set_result(None)
