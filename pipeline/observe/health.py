"""Is this process well? What its parts complain of, asked when somebody looks (`/health` beside `/metrics`)."""

from __future__ import annotations

import json
import threading
import weakref
from collections.abc import Callable, Iterable
from http import HTTPStatus
from typing import Any

Complaints = Callable[[], list[str]]


class Health:
    """Objects that can tell what is wrong with them; held weakly. Safe from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._asked: list[weakref.WeakMethod[Any]] = []

    def watch(self, complaints: Complaints) -> None:
        """``complaints`` is a method that gives sentences, none while all is well; it must not block."""
        with self._lock:
            self._asked = [one for one in self._asked if one() is not None]
            self._asked.append(weakref.WeakMethod(complaints))

    def problems(self) -> list[str]:
        with self._lock:
            asked = [method for one in self._asked if (method := one()) is not None]
        return [problem for complaints in asked for problem in complaints()]


HEALTH = Health()


def with_health(app: Any) -> Any:
    """The WSGI app, and `/health` in front of it: 200 while all is well, 503 with the reasons in JSON otherwise."""

    def answer(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        if environ.get("PATH_INFO") != "/health":
            answered: Iterable[bytes] = app(environ, start_response)
            return answered
        problems = HEALTH.problems()
        status = HTTPStatus.SERVICE_UNAVAILABLE if problems else HTTPStatus.OK
        body = json.dumps({"ok": not problems, "problems": problems}).encode() + b"\n"
        headers = [("Content-Type", "application/json"), ("Content-Length", str(len(body)))]
        start_response(f"{status.value} {status.phrase}", headers)
        return [body]

    return answer
