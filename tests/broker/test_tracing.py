"""A span's context from put to the handler, in W3C's headers. Its way to the table: tests/spark/test_bronze.py."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import pyarrow as pa
import pytest
from opentelemetry import trace
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags, TraceState

from pipeline import Consumer, Producer
from pipeline.model.record import Record
from pipeline.observe import tracing
from tests.broker.test_producer import order

Make = Callable[..., Any]
PARENT = "00-0000000000000000000000000000abcd-00000000000000ef-01"
STATE = TraceState([("vendor", "value")])


def active(*, sampled: bool = True) -> AbstractContextManager[Any]:
    """The span of PARENT, as if an SDK had started it."""
    flags = TraceFlags(TraceFlags.SAMPLED if sampled else TraceFlags.DEFAULT)
    return trace.use_span(NonRecordingSpan(SpanContext(0xABCD, 0xEF, is_remote=False, trace_flags=flags, trace_state=STATE)))


def test_handlers_run_inside_the_span_in_which_their_record_was_put(order_config: Make) -> None:
    config, stream = order_config(shards=1)
    with Producer(stream, config=config, linger_ms=50) as producer:
        with active():
            producer.put(order(0), key="put")
            producer.put_many([order(1)])
            producer.put_many(pa.Table.from_pylist([order(n) for n in range(2, 1_002)]))
            asyncio.run(producer.aput(order(1_002), key="put"))
            producer.put(order(1_003), key="put", headers=[("traceparent", b"00-1-2-00"), ("other", None)])
        with active(sampled=False):
            producer.put(order(1_004), key="put")
        producer.put(order(1_005), key="put", headers=[("other", b"1")])
    seen: dict[int, tuple[Record, Any]] = {}

    def handle(record: Record) -> None:
        seen[record.value["number"]] = record, trace.get_current_span().get_span_context()

    async def handle_too(record: Record) -> None:
        handle(record)

    with Consumer(stream, group="g", config=config) as consumer:
        consumer.run(handle, max_records=3)
        asyncio.run(consumer.arun(handle_too, workers=1, max_records=1_003))
    for number in range(1_003):
        record, span = seen[number]
        assert record.traceparent == PARENT
        assert record.headers == [("traceparent", PARENT.encode()), ("tracestate", b"vendor=value")]
        assert (span.trace_id, span.span_id, span.is_remote, span.trace_state) == (0xABCD, 0xEF, True, STATE), number
    assert seen[1_003][0].headers == [("traceparent", b"00-1-2-00"), ("other", None)], "a caller's own stays"
    assert [seen[number][0].traceparent for number in (1_004, 1_005)] == [None, None]
    assert not any(seen[number][1].is_valid for number in (1_003, 1_004, 1_005)), "no record's context is left behind"


def test_columns_carry_the_context_too(order_config: Make) -> None:
    config, stream = order_config(shards=1)
    with Producer(stream, config=config, linger_ms=50) as producer:
        producer.put(order(0), key="without")
        with active():
            producer.put(order(1), key="with")
    with Consumer(stream, group="g", config=config) as consumer:
        meta = next(consumer.arrow()).column("_meta").to_pylist()
    assert [one["traceparent"] for one in meta] == [None, PARENT]


def test_nothing_stands_in_the_way_where_opentelemetry_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracing, "trace", None)
    assert tracing.traced() is None
    assert tracing.within_trace(test_columns_carry_the_context_too) is test_columns_carry_the_context_too
