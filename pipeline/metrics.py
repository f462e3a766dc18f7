"""Every metric of producers and consumers: name, labels, unit and meaning in one place (prometheus_client's default registry).

Cost: counters are moved per aggregate, never per record, and label children are held by whoever counts. Labels are bounded:
a stream's name and a group's; never a key, an id or an offset.
"""

from __future__ import annotations

from prometheus_client import Counter, Histogram

_STREAM = ["stream"]
_GROUP = ["stream", "group"]

RECORDS_ACKNOWLEDGED = Counter("headrace_records_acknowledged", "User records acknowledged to their callers", _STREAM)
RECORDS_FAILED = Counter("headrace_records_failed", "User records whose receipt failed", _STREAM)
AGGREGATES_SENT = Counter("headrace_aggregates_sent", "Kafka messages handed to the client, those sent again included", _STREAM)
BYTES_SENT = Counter("headrace_sent_bytes", "Bytes of those messages, before compression", _STREAM)
VOID_RESENT = Counter("headrace_void_resent_records", "User records sent again since their shard was sealed before them", _STREAM)
BARRIERS = Counter("headrace_barriers", "Barriers taken on the control log", _STREAM)
CLIENT_FAILURES = Counter("headrace_client_failures", "Kafka clients replaced after a fatal error", _STREAM)
BUFFERING_SECONDS = Histogram(
    "headrace_aggregate_age_seconds",
    "From an aggregate's first record to its acknowledgement",
    _STREAM,
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60),
)

RECORDS_HANDLED = Counter("headrace_records_handled", "User records handled by a consumer", _GROUP)
REPEATS_DROPPED = Counter("headrace_repeats_dropped_records", "User records left out as repeats", _GROUP)
VOIDS_SKIPPED = Counter("headrace_voids_skipped_messages", "Messages outside the stream: after their shard's seal", _GROUP)
BAD_MESSAGES = Counter("headrace_bad_messages", "Messages that could not be decoded or are not the stream's", _GROUP)
COMMITS = Counter("headrace_commits", "Commits of a consumer group's positions", _GROUP)
REBALANCES = Counter("headrace_rebalances", "Assignments that gave a member partitions", _GROUP)
