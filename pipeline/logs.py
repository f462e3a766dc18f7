"""Logs of our processes: one line an event; for people on a terminal, as JSON elsewhere or where it is asked for.

Libraries and our modules log through ``logging``, as a library should; structlog shapes what they say. Whoever embeds
Producer or Consumer in a program of their own keeps their own logging: nothing is configured on import. HEADRACE_LOG
sets the level of our loggers (debug, info, warning); record contents are logged nowhere, and what looks like a secret is
struck out of every line.
"""

from __future__ import annotations

import logging
import os
import re
import sys
from typing import TextIO

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

LEVEL_VARIABLE = "HEADRACE_LOG"
LEVELS = ("debug", "info", "warning", "error")
TEXT_CHARS_MAX = 4_000
_STRUCK_OUT = "***"
_NAMES = r"[\w.-]*(?:password|secret|token|passwd|api[_-]?key|registry_auth)[\w.-]*"
_NAMED = re.compile(rf"""({_NAMES}["']?\s*[=:]\s*)("[^"]*"|'[^']*'|[^\s,;&)}}\]]+)""", re.IGNORECASE)
_IN_URL = re.compile(r"(://[^\s/:@]*:)[^\s/@]+@")
_IN_HEADER = re.compile(r"\b(basic|bearer)\s+[A-Za-z0-9+/._=-]{8,}", re.IGNORECASE)


def configure(*, role: str = "", as_json: bool | None = None, stream: TextIO | None = None) -> None:
    """Set up this process's logging to ``stream`` (standard error). ``as_json`` None: JSON unless it is a terminal.
    ``role`` stands in every line: what the process does."""

    def add_role(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
        if role:
            event["role"] = role
        return event

    out = stream or sys.stderr
    human = out.isatty() if as_json is None else not as_json
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        add_role,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.stdlib.ExtraAdder(),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    # Plain tracebacks: the prettier ones print local variables, which are records and passwords.
    last: list[Processor] = (
        [tidy, structlog.dev.ConsoleRenderer(colors=True, exception_formatter=structlog.dev.plain_traceback)]
        if human
        else [structlog.processors.format_exc_info, tidy, structlog.processors.JSONRenderer(default=str)]
    )
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(out)
    remove_meta = structlog.stdlib.ProcessorFormatter.remove_processors_meta
    handler.setFormatter(structlog.stdlib.ProcessorFormatter(foreign_pre_chain=shared, processors=[remove_meta, *last]))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    wished = os.environ.get(LEVEL_VARIABLE, "info").lower()
    logging.getLogger("headrace").setLevel((wished if wished in LEVELS else "info").upper())


def tidy(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    """Strike secrets out of every text, keep the event on one line, and bound it."""
    for key, value in event.items():
        if isinstance(value, str):
            event[key] = _clean(value)
        elif isinstance(value, BaseException | bytes):
            event[key] = _clean(f"<{len(value)} bytes>" if isinstance(value, bytes) else str(value))
    event["event"] = " ".join(str(event.get("event", "")).split())
    return event


def _clean(text: str) -> str:
    text = _IN_HEADER.sub(rf"\1 {_STRUCK_OUT}", _IN_URL.sub(rf"\1{_STRUCK_OUT}@", _NAMED.sub(rf"\1{_STRUCK_OUT}", text)))
    return text if len(text) <= TEXT_CHARS_MAX else f"{text[:TEXT_CHARS_MAX]}… ({len(text):,} characters)"
