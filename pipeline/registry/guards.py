"""What stands before the routes: readiness, who may ask, how much at once, how large. Plain ASGI.

Order, outermost first: metrics, limit of requests at once, user and password, size of the body, readiness, raw path.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import time
from collections.abc import Mapping

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pipeline.registry import errors
from pipeline.registry.answers import refusal
from pipeline.registry.metrics import RegistryMetrics, route_name
from pipeline.registry.store import SchemaStore


class Guards:
    """Lets through what may pass. ``users`` maps names to passwords; empty: everybody may ask."""

    def __init__(
        self,
        app: ASGIApp,
        store: SchemaStore,
        metrics: RegistryMetrics,
        *,
        users: Mapping[str, str],
        requests_max: int,
        body_bytes_max: int,
    ) -> None:
        self.app = app
        self.store = store
        self.metrics = metrics
        self.requests_max = requests_max
        self.body_bytes_max = body_bytes_max
        # Digests have one length, so comparing them says nothing about a password.
        self.users = {name: _digest(password) for name, password in users.items()}
        self.running = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        began_at = time.perf_counter()
        status = 500

        async def watched(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        raw_path = scope.get("raw_path") or scope["path"].encode()
        path = raw_path.split(b"?")[0].decode("latin-1")
        self.running += 1
        try:
            self._check(scope, path)
            # Routes match the path as it was sent: %2F in a subject is part of its name, not a border.
            inner = {**scope, "path": path.rstrip("/") or "/", "root_path": ""}
            await self.app(inner, self._bounded(receive), watched)
        except errors.RegistryError as error:
            await refusal(error)(scope, receive, watched)
        finally:
            self.running -= 1
            self.metrics.observe(route_name(path), scope["method"], status, time.perf_counter() - began_at)

    def _check(self, scope: Scope, path: str) -> None:
        if self.running > self.requests_max:
            raise errors.too_busy(self.requests_max)
        headers = {name.lower(): value for name, value in scope["headers"]}
        if self.users and not self._known(headers.get(b"authorization", b"")):
            raise errors.unauthorized()
        declared = headers.get(b"content-length", b"0")
        if not declared.isdigit() or int(declared[:12]) > self.body_bytes_max:
            raise self._too_large()
        if not self.store.ready and path != "/metrics":
            raise errors.not_ready(f"the registry cannot answer: {self.store.failure}")

    def _known(self, header: bytes) -> bool:
        scheme, _, encoded = header.partition(b" ")
        if scheme.lower() != b"basic":
            return False
        try:
            name, _, password = base64.b64decode(encoded.strip(), validate=True).decode().partition(":")
        except (binascii.Error, UnicodeDecodeError):
            return False
        expected = self.users.get(name)
        return hmac.compare_digest(_digest(password), expected or b"") and expected is not None

    def _bounded(self, receive: Receive) -> Receive:
        taken = 0

        async def bounded() -> Message:
            nonlocal taken
            message = await receive()
            taken += len(message.get("body", b""))
            if taken > self.body_bytes_max:
                raise self._too_large()
            return message

        return bounded

    def _too_large(self) -> errors.RegistryError:
        return errors.too_large(f"the request's body may have {self.body_bytes_max:,} bytes: make the schema smaller")


def _digest(password: str) -> bytes:
    return hashlib.sha256(password.encode()).digest()
