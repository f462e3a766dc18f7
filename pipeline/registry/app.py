"""The registry as one ASGI application: routes, guards and the answers to what goes wrong."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

from prometheus_client import CONTENT_TYPE_LATEST
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from pipeline.registry import answers, routes_schemas, routes_settings, routes_subjects
from pipeline.registry.errors import RegistryError
from pipeline.registry.guards import Guards
from pipeline.registry.metrics import RegistryMetrics
from pipeline.registry.store import SchemaStore

log = logging.getLogger("headrace.registry")

BODY_BYTES_MAX = 1_000_000
REQUESTS_MAX = 256


def create_app(
    store: SchemaStore,
    *,
    users: Mapping[str, str] | None = None,
    requests_max: int = REQUESTS_MAX,
    body_bytes_max: int = BODY_BYTES_MAX,
) -> Starlette:
    """The application over ``store``, which it starts and closes. ``users`` (name → password) turns basic auth on."""
    metrics = RegistryMetrics(store)

    async def exposition(request: Request) -> Response:
        return Response(metrics.text(), media_type=CONTENT_TYPE_LATEST)

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        store.start()
        yield
        store.close()

    app = Starlette(
        routes=[
            *routes_schemas.ROUTES,
            *routes_subjects.ROUTES,
            *routes_settings.ROUTES,
            Route("/metrics", exposition, methods=["GET"]),
        ],
        middleware=[
            Middleware(
                Guards,
                store=store,
                metrics=metrics,
                users=users or {},
                requests_max=requests_max,
                body_bytes_max=body_bytes_max,
            )
        ],
        exception_handlers={RegistryError: _refused, HTTPException: _http_error, Exception: _our_bug},
        lifespan=lifespan,
    )
    app.router.redirect_slashes = False
    app.state.store = store
    return app


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, RegistryError)
    return answers.refusal(error)


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return answers.Answer(
        {"error_code": error.status_code, "message": f"HTTP {error.status_code} {error.detail}"}, status_code=error.status_code
    )


async def _our_bug(request: Request, error: Exception) -> Response:
    log.error("a request of %s failed: %s", request.method, type(error).__name__, exc_info=error)
    return answers.Answer({"error_code": 500, "message": "the registry failed on this request; see its log"}, status_code=500)
