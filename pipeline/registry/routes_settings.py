"""/config and /mode, for all and per subject."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from pipeline.registry import asking, configuring, deleting
from pipeline.registry.answers import Answer
from pipeline.registry.app_context import look, write
from pipeline.registry.state import DEFAULT_LEVEL, DEFAULT_MODE


async def get_config(request: Request) -> Response:
    scope, default = asking.scope(request), asking.flag(request, "defaultToGlobal")
    return Answer(await look(request, lambda state: configuring.get_config(state, scope, default_to_global=default)))


async def put_config(request: Request) -> Response:
    scope, wanted = asking.scope(request), await asking.body(request)
    return Answer(await write(request, lambda state: configuring.set_config(state, scope, wanted)))


async def delete_config(request: Request) -> Response:
    scope = asking.scope(request)
    before = await write(request, lambda state: deleting.delete_setting(state, "CONFIG", scope))
    return Answer({"compatibilityLevel": DEFAULT_LEVEL, **(before or {})})


async def get_mode(request: Request) -> Response:
    scope, default = asking.scope(request), asking.flag(request, "defaultToGlobal")
    return Answer(await look(request, lambda state: configuring.get_mode(state, scope, default_to_global=default)))


async def put_mode(request: Request) -> Response:
    scope, wanted, force = asking.scope(request), await asking.body(request), asking.flag(request, "force")
    return Answer(await write(request, lambda state: configuring.set_mode(state, scope, wanted, force=force)))


async def delete_mode(request: Request) -> Response:
    scope, recursive = asking.scope(request), asking.flag(request, "recursive")
    before = await write(request, lambda state: deleting.delete_setting(state, "MODE", scope, recursive=recursive))
    return Answer({"mode": (before or {}).get("mode", DEFAULT_MODE if scope is None else None)})


ROUTES = [
    Route(path, endpoint, methods=[method])
    for name, endpoints in {
        "config": {"GET": get_config, "PUT": put_config, "DELETE": delete_config},
        "mode": {"GET": get_mode, "PUT": put_mode, "DELETE": delete_mode},
    }.items()
    for method, endpoint in endpoints.items()
    for path in (f"/{name}", f"/{name}/{{subject}}")
]
