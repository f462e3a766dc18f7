"""The other dashboards; see panels.py."""

from __future__ import annotations

from panels import GROUP, MESSAGES, RATE, RECORDS, RECORDS_PER_S, SECONDS, STREAM, TABLE, Board, Panel, rate

_BY_SHARD = rate("headrace_producer_shard_records_total", "@S", "stream, shard")

_USED = "max by (stream) (headrace_stream_partitions_used{@S})"

SHARDS = Board(
    "headrace-shards",
    "Headrace / Shards",
    "The map of shards over time, skew, reshards, gates",
    (STREAM, GROUP),
    (
        Panel(
            "Map of open shards",
            "Each band is a shard's part of all hash keys; a split parts a band in two",
            "percentunit",
            (("max by (stream, shard) (headrace_stream_shard_hash_share_ratio{@S})", "{{stream}} {{shard}}"),),
            stacked=True,
        ),
        Panel(
            "Records by shard",
            "Acknowledged a second",
            RECORDS_PER_S,
            ((_BY_SHARD, "{{stream}} {{shard}}"),),
            "hot-shard",
            stacked=True,
        ),
        Panel(
            "Skew",
            "The hottest shard beside the mean: 1 is even",
            "short",
            ((f"max by (stream) ({_BY_SHARD}) / avg by (stream) ({_BY_SHARD})", "{{stream}}"),),
            "hot-shard",
        ),
        Panel(
            "Hottest shards", "The ten hottest", RECORDS_PER_S, ((f"topk(10, {_BY_SHARD})", "{{stream}} {{shard}}"),), "hot-shard"
        ),
        Panel(
            "Hot keys",
            "Part of the newest records that the hottest key, and the ten hottest, have",
            "percentunit",
            (("max by (stream, rank) (headrace_producer_top_keys_share_ratio{@S})", "{{stream}} top {{rank}}"),),
            "hot-shard",
        ),
        Panel(
            "Unevenness",
            "Gini coefficient of the shards: 0 all alike, towards 1 all to one",
            "percentunit",
            (("max by (stream) (headrace_producer_shard_gini_ratio{@S})", "{{stream}}"),),
            "hot-shard",
        ),
        Panel(
            "Shards by state",
            "Sealed ones only add up: each reshard seals its parents",
            "short",
            (("max by (stream, state) (headrace_stream_shards{@S})", "{{stream}} {{state}}"),),
        ),
        Panel(
            "Pending reshards",
            "Prepared, the outcome not in the log yet: for how long",
            SECONDS,
            (("max by (stream) (headrace_stream_pending_reshard_seconds{@S})", "{{stream}}"),),
            "pending-reshard",
        ),
        Panel(
            "Shards that wait at the gate",
            "Assigned, and not read before their parents are drained",
            "short",
            (("sum by (stream, group) (headrace_consumer_gated_shards{@G})", "{{stream}} {{group}}"),),
            "gate-waiting",
        ),
        Panel(
            "Partitions used",
            "Of partitions_max: Kafka takes none back",
            "percentunit",
            (
                (
                    f"{_USED} / {_USED.replace('used', 'max')}",
                    "{{stream}}",
                ),
            ),
        ),
    ),
)



def _freshness(quantile: str, kind: str) -> str:
    matchers = f'@T, kind="{kind}"'
    buckets = f"sum by (table, le) (rate(headrace_table_freshness_seconds_bucket{{{matchers}}}{RATE}))"
    return f"histogram_quantile({quantile}, {buckets})"


TABLES = Board(
    "headrace-tables",
    "Headrace / Spark and tables",
    "Micro-batches, lag and contents of bronze, silver and gold",
    (TABLE,),
    (
        Panel(
            "Rows read",
            "By micro-batches (bronze: Kafka messages)",
            RECORDS_PER_S,
            ((rate("headrace_table_input_rows_total", "@T", "table"), "{{table}}"),),
        ),
        Panel(
            "Rows processed",
            "Of the last micro-batch, by the time it took: what a table could take; below what arrives, it falls behind",
            RECORDS_PER_S,
            (
                ("max by (table) (headrace_table_processed_rows_per_second{@T})", "{{table}} processed"),
                ("max by (table) (headrace_table_input_rows_per_second{@T})", "{{table}} arriving"),
            ),
            "lag-growing",
        ),
        Panel(
            "Freshness",
            "From produced to visible in Delta, of each micro-batch's oldest record; its newest for comparison",
            SECONDS,
            (
                (_freshness("0.5", "oldest"), "{{table}} p50"),
                (_freshness("0.99", "oldest"), "{{table}} p99"),
                (_freshness("0.5", "newest"), "{{table}} newest p50"),
            ),
            "freshness",
        ),
        Panel(
            "Since the last micro-batch",
            "A driver that is idle does not count as behind; one that is dead does",
            SECONDS,
            (("time() - max by (table) (headrace_table_committed_timestamp_seconds{@T})", "{{table}}"),),
            "freshness",
        ),
        Panel(
            "Behind",
            "Kafka messages not read at the last micro-batch's end",
            MESSAGES,
            (("max by (table) (headrace_table_behind_messages{@T})", "{{table}}"),),
            "lag-growing",
        ),
        Panel(
            "Behind, in records",
            "Not read at the last micro-batch's end; bronze: estimated from messages",
            RECORDS,
            (("max by (table) (headrace_table_behind_records{@T})", "{{table}}"),),
            "lag-growing",
        ),
        Panel(
            "Behind, in time",
            "Age of the newest record in the table while there are newer ones; 0 at the end",
            SECONDS,
            (("max by (table) (headrace_table_behind_seconds{@T})", "{{table}}"),),
            "freshness",
        ),
        Panel(
            "Records in tables",
            "Bronze: since the table was made; silver: merged by this driver; gold: newest refresh",
            RECORDS,
            (("max by (table) (headrace_table_records{@T})", "{{table}}"),),
        ),
        Panel(
            "Phases of a micro-batch",
            "Seconds of each second, by Spark's phases",
            "percentunit",
            ((rate("headrace_table_micro_batch_seconds_total", "@T", "table, phase"), "{{table}} {{phase}}"),),
            stacked=True,
        ),
        Panel(
            "Rejected, repeats, voids",
            "Totals of bronze tables; of silver, those of this driver",
            RECORDS,
            (
                ("max by (table) (headrace_table_rejected{@T})", "{{table}} rejected"),
                ("max by (table) (headrace_table_repeats{@T})", "{{table}} repeats"),
                ("max by (table) (headrace_table_voids{@T})", "{{table}} voids"),
            ),
            "dead-letters",
        ),
        Panel(
            "Merged",
            "Rows a second that silver's merges insert, update, and copy as they are: copies are what a merge costs",
            RECORDS_PER_S,
            ((rate("headrace_table_merge_rows_total", "@T", "table, kind"), "{{table}} {{kind}}"),),
            "table-maintenance",
        ),
        Panel(
            "Versions",
            "Delta's newest version, and the version of its source up to which silver has merged",
            "short",
            (
                ("max by (table) (headrace_table_version{@T})", "{{table}}"),
                ("max by (table) (headrace_table_source_version{@T})", "{{table}} has merged"),
            ),
        ),
        Panel(
            "State",
            "Rows that queries keep (bronze: marks)",
            "short",
            (("max by (table) (headrace_table_state_rows{@T})", "{{table}}"),),
        ),
        Panel(
            "State, in bytes",
            "In memory (bronze: in each commit)",
            "bytes",
            (("max by (table) (headrace_table_state_bytes{@T})", "{{table}}"),),
        ),
        Panel(
            "Late rows",
            "Came after the watermark had closed their window, and were left out",
            RECORDS_PER_S,
            ((rate("headrace_table_late_rows_total", "@T", "table"), "{{table}}"),),
        ),
        Panel(
            "Queries that failed",
            "Some are tried again by the supervisor",
            "ops",
            ((rate("headrace_table_query_failures_total", "@T", "table"), "{{table}}"),),
            "checkpoint-failures",
        ),
        Panel(
            "Files",
            "Data files of the newest version",
            "short",
            (("max by (table) (headrace_table_files{@T})", "{{table}}"),),
            "table-maintenance",
        ),
        Panel("Bytes", "Of those files", "bytes", (("max by (table) (headrace_table_bytes{@T})", "{{table}}"),)),
        Panel(
            "Since the last maintenance",
            "Of tables that were maintained since the process started; what was refused does not count",
            SECONDS,
            (("time() - max by (table) (headrace_table_maintained_timestamp_seconds{@T})", "{{table}}"),),
            "table-maintenance",
        ),
        Panel(
            "Maintenance failed or refused",
            "VACUUM refuses while a reader lags behind",
            "ops",
            ((rate("headrace_table_maintenance_failures_total", "@T", "table"), "{{table}}"),),
            "table-maintenance",
        ),
    ),
)

REGISTRY = Board(
    "headrace-registry",
    "Headrace / Registry and dead letters",
    "The schema registry's requests and contents; dead letters",
    (STREAM,),
    (
        Panel(
            "Requests",
            "By route and status",
            "reqps",
            ((rate("headrace_registry_requests_total", "@A", "route, status"), "{{route}} {{status}}"),),
        ),
        Panel(
            "Time of requests",
            "99th percentile by route",
            SECONDS,
            (
                (
                    "histogram_quantile(0.99, sum by (route, le) "
                    "(rate(headrace_registry_request_seconds_bucket{@A}[$__rate_interval])))",
                    "{{route}}",
                ),
            ),
        ),
        Panel(
            "Ready",
            "1 once the registry has read its topic",
            "short",
            (("min(headrace_registry_ready{@A})", "ready"),),
            kind="stat",
        ),
        Panel(
            "Subjects and ids",
            "What it keeps, deleted ones too",
            "short",
            (
                ("max(headrace_registry_subjects{@A})", "subjects"),
                ("max(headrace_registry_versions{@A})", "versions"),
                ("max(headrace_registry_ids{@A})", "ids"),
            ),
        ),
        Panel(
            "Trouble",
            "Records skipped, ids that were taken, turns lost to another registry",
            "ops",
            (
                ("sum(rate(headrace_registry_records_unreadable_total{@A}[$__rate_interval]))", "unreadable"),
                ("sum(rate(headrace_registry_id_conflicts_total{@A}[$__rate_interval]))", "id conflicts"),
                ("sum(rate(headrace_registry_turns_lost_total{@A}[$__rate_interval]))", "turns lost"),
            ),
        ),
        Panel(
            "Dead letters kept",
            "In each stream's dead letter topic",
            RECORDS,
            (("max by (stream) (headrace_stream_dead_letters_kept{@S})", "{{stream}}"),),
            "dead-letters",
        ),
        Panel(
            "Bad messages",
            "Could not be decoded, or are not the stream's",
            RECORDS_PER_S,
            ((rate("headrace_consumer_bad_messages_total", "@S", "stream, group"), "{{stream}} {{group}}"),),
            "dead-letters",
        ),
    ),
)

BROKER = Board(
    "headrace-broker",
    "Headrace / Broker",
    "The Kafka cluster as its clients and the exporter see it",
    (STREAM,),
    (
        Panel("Brokers", "That serve", "short", (("max(headrace_cluster_brokers{@A})", "brokers"),), kind="stat", width=6),
        Panel(
            "Under-replicated partitions",
            "Of streams: a copy lags behind or its broker is gone",
            "short",
            (("max(headrace_cluster_under_replicated_partitions{@A})", "partitions"),),
            kind="stat",
            width=6,
        ),
        Panel(
            "Messages kept",
            "In the partitions of open shards",
            MESSAGES,
            (("sum by (stream) (headrace_stream_shard_messages{@S})", "{{stream}}"),),
        ),
        Panel(
            "Time of a survey",
            "The exporter asks every broker: slow answers show here first",
            SECONDS,
            (
                (
                    "histogram_quantile(0.9, sum by (le) (rate(headrace_exporter_survey_seconds_bucket{@A}[$__rate_interval])))",
                    "p90",
                ),
            ),
        ),
        Panel(
            "Surveys that failed",
            "No broker answered in time",
            "ops",
            (("sum(rate(headrace_exporter_survey_failures_total{@A}[$__rate_interval]))", "failed"),),
            "scrape-gone",
        ),
        Panel(
            "Throttled",
            "Part of the time for which brokers told clients to wait (quotas)",
            "percentunit",
            ((rate("headrace_client_throttled_seconds_total", "@A", "client"), "{{client}}"),),
        ),
    ),
)
