"""docs/metrics.md from the definitions: `python -m pipeline.observe.document` writes it; a test compares."""

from __future__ import annotations

from itertools import groupby
from pathlib import Path

from pipeline.metrics import DEFINITIONS, Definition

_WHERE = {
    "producer": "Producers",
    "consumer": "Consumers",
    "client": "Kafka clients of both",
    "table": "Tables: Spark drivers",
    "quality": "Quality rules: Spark drivers",
    "transform": "Transforms: Spark drivers",
    "stream": "Streams: the exporter",
    "group": "Groups: the exporter",
    "cluster": "The cluster: the exporter",
    "exporter": "The exporter itself",
    "registry": "The schema registry",
}
_HEAD = """# Metrics

Written by `python -m pipeline.observe.document`; do not edit. Names and meanings are those of `pipeline/metrics.py`.

Each process with a producer, a consumer or a Spark driver serves one endpoint, by default on a free port of the loopback
interface (`metrics:` in headrace.yml, see [configuration.md](configuration.md)). Running ones register under
`$HEADRACE_HOME/metrics/*.json`, which Prometheus reads as `file_sd_configs`; `headrace status` lists them.
`headrace exporter` surveys streams, lags and dead letters from outside, so they are seen also while every producer and
consumer is down. Jobs that end before they are scraped (available-now) push to `metrics.pushgateway` where one is configured.

Counters end in `_total`; units are seconds, bytes, records and messages. Labels are bounded: stream, group, table, open
shard. The aggregate age histogram carries exemplars (shard and offset) for those who scrape OpenMetrics.
"""
_KINESIS = (
    ("IncomingRecords, UserRecordsPut", "rate(headrace_producer_records_acknowledged_total[5m])"),
    ("IncomingBytes", "rate(headrace_producer_sent_bytes_total[5m])"),
    ("GetRecords.Records, RecordsProcessed", "rate(headrace_consumer_records_handled_total[5m])"),
    ("GetRecords.IteratorAgeMilliseconds, MillisBehindLatest", "1000 * headrace_consumer_behind_seconds"),
    ("Write- and ReadProvisionedThroughputExceeded (brokers' quotas)", "rate(headrace_client_throttled_seconds_total[5m])"),
    (
        "UserRecordsPerKinesisRecord",
        "rate(headrace_producer_records_acknowledged_total[5m]) / rate(headrace_producer_aggregates_sent_total[5m])",
    ),
    ("BufferingTime", "headrace_producer_aggregate_age_seconds"),
    ("UserRecordsPending", "headrace_producer_buffered_records"),
    ("AllErrors, UserRecordsDataPutFailed", "rate(headrace_producer_records_failed_total[5m])"),
    ("RetriesPerRecord", "rate(headrace_producer_void_records_resent_total[5m])"),
    ("IncomingRecords of a shard (hot shard)", "rate(headrace_producer_shard_records_total[5m])"),
    ("OpenShardCount", 'headrace_stream_shards{state="open"}'),
)


def document() -> str:
    """The whole page."""
    parts = [_HEAD]
    for where, found in groupby(DEFINITIONS.values(), key=lambda one: one.where):
        parts.append(f"## {_WHERE[where]}\n\n| name | kind | labels | meaning |\n| --- | --- | --- | --- |\n{_rows(list(found))}")
    table = "".join(f"| {theirs} | `{ours}` |\n" for theirs, ours in _KINESIS)
    kinesis = f"## Coming from Kinesis\n\n| Kinesis (stream, KPL, KCL) | here |\n| --- | --- |\n{table}"
    return "\n".join([*parts, kinesis])


def _rows(found: list[Definition]) -> str:
    return "".join(f"| `{one.name}` | {one.kind} | {', '.join(one.labels)} | {one.meaning} |\n" for one in found)


if __name__ == "__main__":
    Path("docs/metrics.md").write_text(document(), encoding="utf-8")
