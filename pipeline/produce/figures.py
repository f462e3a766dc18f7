"""What metrics are told of an aggregate's way, each figure once per aggregate, never per record."""

from __future__ import annotations

from pipeline import metrics
from pipeline.produce.aggregate import Aggregate


class SendFigures:
    """Of one producer; called by its sender and by its client's thread."""

    def __init__(self, stream: str) -> None:
        self._sent = metrics.AGGREGATES_SENT.labels(stream)
        self._bytes = metrics.BYTES_SENT.labels(stream)
        self._per_aggregate = metrics.RECORDS_PER_AGGREGATE.labels(stream)
        self._buffering = metrics.AGGREGATE_BUFFERING_SECONDS.labels(stream)
        self._request = metrics.REQUEST_SECONDS.labels(stream)
        self._again = metrics.RECORDS_SENT_AGAIN.labels(stream)

    def sending(self, aggregate: Aggregate, message_bytes: int, now_ms: int) -> None:
        self._sent.inc()
        self._bytes.inc(message_bytes)
        if aggregate.sent_ms is None:
            self._per_aggregate.observe(aggregate.count)
            self._buffering.observe(max(0, now_ms - aggregate.created_ms) / 1000)
        else:
            self._again.inc(aggregate.count)
        aggregate.sent_ms = now_ms

    def delivered(self, aggregate: Aggregate, now_ms: int) -> None:
        if aggregate.sent_ms is not None:
            self._request.observe(max(0, now_ms - aggregate.sent_ms) / 1000)
