"""How a route asks and writes: reads on the event loop, everything that may wait in a thread."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from anyio.to_thread import run_sync
from starlette.requests import Request

from pipeline.registry.errors import RegistryError
from pipeline.registry.registering import Decision
from pipeline.registry.state import RegistryState
from pipeline.registry.store import SchemaStore

T = TypeVar("T")


def of(request: Request) -> SchemaStore:
    store: SchemaStore = request.app.state.store
    return store


async def look(request: Request, find: Callable[[RegistryState], T]) -> T:
    """What ``find`` finds. Before "there is no such thing" is said, the topic is read to its end.

    Another registry may have acknowledged it a moment ago, and a reader that is told that an id does not exist throws the
    data away.
    """
    store = of(request)
    parses = request.method == "POST"
    try:
        return await run_sync(find, store.state) if parses else find(store.state)
    except RegistryError as error:
        if error.status != 404 and error.code != 42201:
            raise
    await run_sync(store.refresh)
    return await run_sync(find, store.state)


async def write(request: Request, decide: Callable[[RegistryState], Decision]) -> Any:
    """Writes through the topic and returns the decision's answer."""
    return await run_sync(of(request).write, decide)
