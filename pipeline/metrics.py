"""Every metric of Headrace: name, kind, labels and meaning in one place. To add one is a line here; docs/metrics.md follows by
`python -m pipeline.observe.document`, and tests hold the names to Prometheus' rules.

Cost: counters are moved per aggregate, never per record, and label children are held by whoever counts. Gauges that live in
an object (a buffer, a lag) are read from it at the scrape (``Live``). Labels are bounded: streams, groups, tables, open shards
(``forget_shard`` when one is sealed), a top-k of keys; never an id or an offset.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from prometheus_client import REGISTRY, Counter, Gauge, Histogram
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)


@dataclass(frozen=True, slots=True)
class Definition:
    """One metric. ``name`` is what Prometheus sees, a counter's ``_total`` included."""

    name: str
    kind: str  # counter, gauge or histogram
    labels: tuple[str, ...]
    meaning: str

    @property
    def where(self) -> str:
        """Which kind of process tells it: the word behind ``headrace_``."""
        return self.name.split("_")[1]

    @property
    def adds_up(self) -> bool:
        """Whether the figures of two sources with the same labels are added; else the larger one counts: ages, parts of a
        whole, and what several observers see of one thing."""
        if self.kind != "gauge":
            return True
        return not self.name.endswith(("_seconds", "_ratio")) and self.where not in ("stream", "group", "cluster", "table")


DEFINITIONS: dict[str, Definition] = {}


def _counter(name: str, meaning: str, labels: Sequence[str] = ()) -> Counter:
    _define(f"{name}_total", "counter", meaning, labels)
    return Counter(name, meaning, labels)


def _gauge(name: str, meaning: str, labels: Sequence[str] = ()) -> Gauge:
    _define(name, "gauge", meaning, labels)
    return Gauge(name, meaning, labels)


def _histogram(name: str, meaning: str, labels: Sequence[str] = (), buckets: Sequence[float] = SECONDS) -> Histogram:
    _define(name, "histogram", meaning, labels)
    return Histogram(name, meaning, labels, buckets=tuple(buckets))


def _live(name: str, meaning: str, labels: Sequence[str] = ()) -> Definition:
    return _define(name, "gauge", meaning, labels)


def _define(name: str, kind: str, meaning: str, labels: Sequence[str]) -> Definition:
    DEFINITIONS[name] = Definition(name, kind, tuple(labels), meaning)
    return DEFINITIONS[name]


_STREAM = ["stream"]
_SHARD = ["stream", "shard"]
_GROUP = ["stream", "group"]
_GROUP_SHARD = ["stream", "group", "shard"]

# -- producers -------------------------------------------------------------------------------------------------------------

RECORDS_ACKNOWLEDGED = _counter("headrace_producer_records_acknowledged", "User records acknowledged to their callers", _STREAM)
RECORDS_FAILED = _counter("headrace_producer_records_failed", "User records whose receipt failed", _STREAM)
RECORDS_EXPIRED = _counter("headrace_producer_records_expired", "User records that waited for longer than expiry_s", _STREAM)
LIMITED_SECONDS = _counter(
    "headrace_producer_limited_seconds", "Time for which a shard's rate limit held aggregates back, summed over shards", _STREAM
)
AGGREGATES_SENT = _counter(
    "headrace_producer_aggregates_sent", "Kafka messages handed to the client, those sent again included", _STREAM
)
BYTES_SENT = _counter("headrace_producer_sent_bytes", "Bytes of those messages, before compression", _STREAM)
RECORDS_TAKEN = _counter("headrace_producer_records_put", "User records put, counted when their aggregate is sealed", _STREAM)
RECORDS_SENT_AGAIN = _counter(
    "headrace_producer_records_sent_again", "User records handed over again since their outcome was unknown", _STREAM
)
RECORDS_PER_AGGREGATE = _histogram(
    "headrace_producer_records_per_aggregate", "User records in an aggregate", _STREAM, (1, 3, 10, 30, 100, 300, 1e3, 3e3, 1e4)
)
AGGREGATE_BUFFERING_SECONDS = _histogram(
    "headrace_producer_buffering_seconds", "From an aggregate's first record until it is first handed to the client", _STREAM
)
REQUEST_SECONDS = _histogram(
    "headrace_producer_request_seconds", "From handing an aggregate to the client until its delivery report", _STREAM
)
SEND_ERRORS = _counter("headrace_producer_errors", "Errors of sending, by the client's code", ["stream", "reason"])
VOID_RESENT = _counter(
    "headrace_producer_void_records_resent", "User records sent again since their shard was sealed before them", _STREAM
)
BARRIER_SECONDS = _histogram("headrace_producer_barrier_seconds", "Time that a barrier on the control log took", _STREAM)
CLIENT_FAILURES = _counter("headrace_producer_client_failures", "Kafka clients replaced after a fatal error", _STREAM)
BUFFERING_SECONDS = _histogram(
    "headrace_producer_aggregate_age_seconds", "From an aggregate's first record to its acknowledgement", _STREAM
)
SHARD_RECORDS = _counter("headrace_producer_shard_records", "User records acknowledged, by open shard", _SHARD)
SHARD_BYTES = _counter("headrace_producer_shard_bytes", "Encoded bytes acknowledged, by open shard", _SHARD)
TOP_KEYS_SHARE = _live(
    "headrace_producer_top_keys_share_ratio", "Part of the newest million records that the keys up to a rank (1, 10) have",
    ["stream", "rank"],
)
SHARD_GINI = _live(
    "headrace_producer_shard_gini_ratio", "How unevenly records go to shards: 0 all alike, towards 1 all to one", _STREAM
)
BUFFERED_RECORDS = _live("headrace_producer_buffered_records", "User records put and not yet acknowledged", _STREAM)
BUFFERED_BYTES = _live("headrace_producer_buffered_bytes", "What they take of buffer_bytes_max", _STREAM)

# -- consumers -------------------------------------------------------------------------------------------------------------

RECORDS_HANDLED = _counter("headrace_consumer_records_handled", "User records handled by a consumer", _GROUP)
REPEATS_DROPPED = _counter("headrace_consumer_repeats_dropped", "User records left out as repeats", _GROUP)
VOIDS_SKIPPED = _counter("headrace_consumer_voids_skipped", "Messages outside the stream: after their shard's seal", _GROUP)
BAD_MESSAGES = _counter("headrace_consumer_bad_messages", "Messages that could not be decoded or are not the stream's", _GROUP)
DUPLICATES_DROPPED = _counter(
    "headrace_consumer_duplicates_dropped", "User records left out by their explicit dedup id", _GROUP
)
READ_BYTES = _counter("headrace_consumer_read_bytes", "Bytes of the messages read, after decompression", _GROUP)
TRIMMED = _counter("headrace_consumer_trimmed_offsets", "Offsets that retention removed unread, passed over", _GROUP)
RETRIES = _counter("headrace_consumer_retries", "Handlers called again after they raised", _GROUP)
DEAD_LETTERS = _counter(
    "headrace_consumer_dead_letters", "Records and messages put into the dead letters, by error class", [*_GROUP, "reason"]
)
HANDLER_SECONDS = _histogram("headrace_consumer_handler_seconds", "How long a handler took for a record, each try", _GROUP)
COMMIT_SECONDS = _histogram("headrace_consumer_commit_seconds", "How long a commit took, its marks included", _GROUP)
GATE_WAIT_SECONDS = _counter(
    "headrace_consumer_gate_wait_seconds", "Time that assigned partitions waited before they were read", _GROUP
)
COMMITS = _counter("headrace_consumer_commits", "Commits of a consumer group's positions", _GROUP)
COMMIT_FAILURES = _counter(
    "headrace_consumer_commit_failures", "Commits that failed; tried again, unless the shards went to another member", _GROUP
)
REBALANCES = _counter("headrace_consumer_rebalances", "Assignments that gave a member partitions", _GROUP)
LAG_MESSAGES = _live(
    "headrace_consumer_lag_messages", "Messages between this process's positions and the ends of its shards", _GROUP
)
BEHIND_SECONDS = _live(
    "headrace_consumer_behind_seconds", "Age of the newest message handled, while there are newer ones; 0 at the end", _GROUP
)
GATED_SHARDS = _live("headrace_consumer_gated_shards", "Assigned shards that wait for their parents (lineage gate)", _GROUP)

# -- both ------------------------------------------------------------------------------------------------------------------

THROTTLED_SECONDS = _counter("headrace_client_throttled_seconds", "Time for which brokers told a client to wait", ["client"])

# -- tables: Spark drivers -------------------------------------------------------------------------------------------------

_TABLE = ["table"]
TABLE_VERSION = _gauge("headrace_table_version", "Delta version last written", _TABLE)
TABLE_RECORDS = _gauge(
    "headrace_table_records", "Bronze: records in the table; silver: merged by this driver; gold: rows of the last step", _TABLE
)
TABLE_REPEATS = _gauge(
    "headrace_table_repeats", "Repeats left out: since the table was made (bronze), of this driver (silver)", _TABLE
)
TABLE_VOIDS = _gauge("headrace_table_voids", "Messages past their shard's seal since the table was made (bronze)", _TABLE)
TABLE_REJECTED = _gauge(
    "headrace_table_rejected", "Dead letters: since the table was made (bronze), of this driver (silver)", _TABLE
)
TABLE_WATERMARK = _gauge("headrace_table_watermark_timestamp_seconds", "Event time up to which windows are final (gold)", _TABLE)
TABLE_FILES = _gauge("headrace_table_files", "Data files of the newest version", _TABLE)
TABLE_BYTES = _gauge("headrace_table_bytes", "Bytes of those files", _TABLE)
TABLE_COMMITTED = _gauge("headrace_table_committed_timestamp_seconds", "When this driver last finished a micro-batch", _TABLE)
TABLE_MICRO_BATCHES = _counter("headrace_table_micro_batches", "Micro-batches finished by this driver", _TABLE)
TABLE_INPUT_ROWS = _counter("headrace_table_input_rows", "Rows (bronze: Kafka messages) read by micro-batches", _TABLE)
TABLE_INPUT_RATE = _gauge(
    "headrace_table_input_rows_per_second", "Rate at which they arrived before the last micro-batch; 0 when idle", _TABLE
)
TABLE_PROCESSED_RATE = _gauge(
    "headrace_table_processed_rows_per_second", "Those of the last micro-batch by the time it took; 0 when idle", _TABLE
)
TABLE_BEHIND = _gauge("headrace_table_behind_messages", "Kafka messages not read yet at the last micro-batch's end", _TABLE)
TABLE_BEHIND_RECORDS = _gauge(
    "headrace_table_behind_records",
    "Records not read yet at the last micro-batch's end (bronze: those messages by the records a message had so far)",
    _TABLE,
)
TABLE_BEHIND_SECONDS = _gauge(
    "headrace_table_behind_seconds", "Age of the newest record in the table, while there are newer ones; 0 at the end", _TABLE
)
TABLE_SOURCE_VERSION = _gauge("headrace_table_source_version", "Version of its source up to which silver has merged", _TABLE)
TABLE_FRESHNESS_SECONDS = _histogram(
    "headrace_table_freshness_seconds",
    "From produced to visible in Delta, of the oldest and the newest record of each micro-batch (kind)",
    ["table", "kind"],
)
TABLE_MERGE_ROWS = _counter(
    "headrace_table_merge_rows", "Rows that this driver's merges inserted, updated, or copied into new files as they were (kind)",
    ["table", "kind"],
)
TABLE_STATE_ROWS = _gauge(
    "headrace_table_state_rows", "Rows that a query keeps as state (bronze: marks, one per producer and hash range)", _TABLE
)
TABLE_STATE_BYTES = _gauge("headrace_table_state_bytes", "Bytes of that state, in memory (bronze: in each commit)", _TABLE)
TABLE_LATE = _counter("headrace_table_late_rows", "Rows that came after the watermark had closed their window", _TABLE)
TABLE_PHASE_SECONDS = _counter(
    "headrace_table_micro_batch_seconds", "Time of micro-batches by Spark's phases", ["table", "phase"]
)
TABLE_FAILURES = _counter("headrace_table_query_failures", "Queries that ended with an error (some are tried again)", _TABLE)
TABLE_MAINTAINED = _gauge("headrace_table_maintained_timestamp_seconds", "When maintenance of the table last ended well", _TABLE)
TABLE_COMPACTED = _counter("headrace_table_compacted_files", "Small files that compaction brought together", _TABLE)
TABLE_VACUUMED = _counter("headrace_table_vacuumed_files", "Files that VACUUM removed from the disk", _TABLE)
TABLE_VACUUMED_BYTES = _counter("headrace_table_vacuumed_bytes", "Bytes of those files", _TABLE)
TABLE_EXPIRED = _counter("headrace_table_expired_rows", "Rows deleted by age, and dead letters whose bytes were", _TABLE)
TABLE_UNMAINTAINED = _counter(
    "headrace_table_maintenance_failures", "Maintenance that failed or was refused, in whole or in part", _TABLE
)

_RULE = ["table", "rule"]
RULE_CHECKED = _counter("headrace_quality_checked_rows", "Rows that a quality rule looked at", _RULE)
RULE_FAILED = _counter("headrace_quality_failed_rows", "Rows that fail a quality rule", _RULE)
RULE_HOLDS = _gauge("headrace_quality_holds", "1 where the rule held for the newest micro-batch, else 0", _RULE)
TRANSFORM_FAILED = _counter("headrace_transform_failed_rows", "Rows that failed at a step between bronze and silver", _TABLE)

# -- the cluster, as the exporter surveys it -------------------------------------------------------------------------------

STREAM_SHARDS = _live("headrace_stream_shards", "Shards by state: open, sealing, sealed", ["stream", "state"])
SHARD_MESSAGES = _live("headrace_stream_shard_messages", "Messages that the log keeps of an open shard's partition", _SHARD)
SHARD_SHARE = _live("headrace_stream_shard_hash_share_ratio", "Part of all hash keys that an open shard owns", _SHARD)
PARTITIONS_USED = _live("headrace_stream_partitions_used", "Partitions that shards have or had", _STREAM)
PARTITIONS_MAX = _live("headrace_stream_partitions_max", "partitions_max of headrace.yml", _STREAM)
PENDING_RESHARDS = _live("headrace_stream_pending_reshards", "Reshards prepared, whose outcome is not in the log yet", _STREAM)
PENDING_SECONDS = _live("headrace_stream_pending_reshard_seconds", "How long the oldest of them was seen pending", _STREAM)
DEAD_LETTERS_KEPT = _live("headrace_stream_dead_letters_kept", "Dead letters in the stream's dead letter topic", _STREAM)
GROUP_LAG = _live("headrace_group_lag_messages", "Messages of a shard that a group has not committed yet", _GROUP_SHARD)
BROKERS = _live("headrace_cluster_brokers", "Brokers that serve")
UNDER_REPLICATED = _live("headrace_cluster_under_replicated_partitions", "Partitions of streams that lack an in-sync replica")
SURVEYED = _gauge("headrace_exporter_surveyed_timestamp_seconds", "When the cluster was last surveyed whole")
SURVEY_SECONDS = _histogram("headrace_exporter_survey_seconds", "Time that a survey took")
SURVEY_FAILURES = _counter("headrace_exporter_survey_failures", "Surveys that failed")

# -- the registry: a process with a collector of its own -------------------------------------------------------------------

REGISTRY_REQUESTS = _define("headrace_registry_requests_total", "counter", "Requests answered", ["route", "method", "status"])
REGISTRY_SECONDS = _define(
    "headrace_registry_request_seconds", "histogram", "From a request's first byte to its answer", ["route", "method"]
)
REGISTRY_READY = _live("headrace_registry_ready", "1 once the topic was read to its end")
REGISTRY_SUBJECTS = _live("headrace_registry_subjects", "Subjects, deleted ones too")
REGISTRY_VERSIONS = _live("headrace_registry_versions", "Versions, deleted ones too")
REGISTRY_IDS = _live("headrace_registry_ids", "Schema ids")
REGISTRY_APPLIED = _define("headrace_registry_records_applied_total", "counter", "Records of the topic applied", [])
REGISTRY_UNREADABLE = _define("headrace_registry_records_unreadable_total", "counter", "Records of the topic skipped", [])
REGISTRY_CONFLICTS = _define("headrace_registry_id_conflicts_total", "counter", "Schemas left out: their id was taken", [])
REGISTRY_TURNS_TAKEN = _define("headrace_registry_turns_taken_total", "counter", "Times this registry took the turn", [])
REGISTRY_TURNS_LOST = _define("headrace_registry_turns_lost_total", "counter", "Writes made again: another came first", [])


# -- gauges that live in objects -------------------------------------------------------------------------------------------

Sample = tuple[Definition, tuple[str, ...], float]
Read = Callable[[], Iterable[Sample]]


class Live(Collector):
    """Asks living objects for their gauges at each scrape. Two objects with the same labels (two producers of one stream)
    are put together as ``adds_up`` says. An object that is gone, or fails to answer, is left out."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._reads: list[weakref.WeakMethod[Any]] = []

    def watch(self, read: Read) -> None:
        """``read`` is a method; its object is held weakly."""
        with self._lock:
            self._reads = [one for one in self._reads if one() is not None]
            self._reads.append(weakref.WeakMethod(read))

    def describe(self) -> list[GaugeMetricFamily]:
        return []  # known only at the scrape; without this, registering would collect

    def collect(self) -> Iterator[GaugeMetricFamily]:
        with self._lock:
            reads = [read for one in self._reads if (read := one()) is not None]
        found: dict[str, dict[tuple[str, ...], float]] = {}
        for read in reads:
            try:
                samples = list(read())
            except Exception:  # noqa: BLE001 - one object's trouble must not take the others' figures away
                continue
            for definition, labels, value in samples:
                of_name = found.setdefault(definition.name, {})
                held = of_name.get(labels)
                of_name[labels] = value if held is None else held + value if definition.adds_up else max(held, value)
        for name, by_labels in found.items():
            definition = DEFINITIONS[name]
            family = GaugeMetricFamily(name, definition.meaning, labels=definition.labels)
            for labels, value in by_labels.items():
                family.add_metric(labels, value)
            yield family


LIVE = Live()
REGISTRY.register(LIVE)


def forget_shard(stream: str, shard: str) -> None:
    """A sealed shard is written no more: its figures leave the scrape, so that their number stays that of the open shards."""
    for metric in (SHARD_RECORDS, SHARD_BYTES):
        with suppress(KeyError):
            metric.remove(stream, shard)
