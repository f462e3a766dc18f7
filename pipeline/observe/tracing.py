"""Trace context along a stream: W3C's ``traceparent`` and ``tracestate`` in records' headers, by OpenTelemetry where it is
installed (extra ``tracing``). Without it records' own headers travel all the same, and nothing here costs anything.

Only sampled spans are carried: a header in every record would cost each of them its place in the message, and the consumer
its decoding by column.
"""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from typing import Any, TypeVar

from pipeline.model.keys import Headers
from pipeline.model.record import TRACE_HEADER, TRACE_STATE_HEADER, Record

try:
    from opentelemetry import context, trace
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
except ImportError:
    trace = None  # type: ignore[assignment]

Result = TypeVar("Result")


def traced() -> Callable[[], bool] | None:
    """The function that tells whether a sampled span is active where it is called; None without OpenTelemetry."""
    return None if trace is None else _is_sampled


def active_context() -> ContextVar[Any] | None:
    """The variable in which OpenTelemetry keeps what is active, for those that have to look often; None where it is not known
    (no OpenTelemetry, or one that keeps it elsewhere): ``traced`` has to be asked then."""
    kept = None if trace is None else getattr(getattr(context, "_RUNTIME_CONTEXT", None), "_current_context", None)
    return kept if isinstance(kept, ContextVar) else None


def with_trace(headers: Headers | None) -> Headers:
    """The headers of a record, with the active span's context unless its caller gave one."""
    if any(name == TRACE_HEADER for name, _ in headers or ()):
        return headers or ()
    carrier: dict[str, str] = {}
    TraceContextTextMapPropagator().inject(carrier)
    return [*(headers or ()), *((name, text.encode()) for name, text in carrier.items())]


def within_trace(handler: Callable[[Record], Result]) -> Callable[[Record], Result]:
    """The handler, called inside the context that each record carries: spans that it starts are children of the one that was
    active at ``put``. Without OpenTelemetry the handler itself."""
    if trace is None:
        return handler

    def inside(record: Record) -> Result:
        parent = record.traceparent
        if parent is None:
            return handler(record)
        carrier = {TRACE_HEADER: parent}
        state = record.header(TRACE_STATE_HEADER)
        if state is not None:
            carrier[TRACE_STATE_HEADER] = state
        token = context.attach(TraceContextTextMapPropagator().extract(carrier))
        try:
            return handler(record)
        finally:
            context.detach(token)

    return inside


def _is_sampled() -> bool:
    # Asked for every record: where nothing is active the context is empty, and no span has to be looked for in it.
    return bool(context.get_current()) and trace.get_current_span().get_span_context().trace_flags.sampled
