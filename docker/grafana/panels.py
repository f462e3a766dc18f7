"""What each dashboard shows: titles, meanings, units and expressions. How it becomes JSON is make.py's.

In expressions @S, @G and @T stand for the label matchers of stream; stream and group; table, and @A for those of every series.
Each ends in the job and instance variables.
"""

from __future__ import annotations

from dataclasses import dataclass

RECORDS_PER_S, MESSAGES, RECORDS, SECONDS = "cps", "short", "short", "s"


@dataclass(frozen=True, slots=True)
class Panel:
    """``queries`` are (expression, legend). ``kind``: timeseries or stat. ``runbook`` names a file of docs/runbooks/."""

    title: str
    meaning: str
    unit: str
    queries: tuple[tuple[str, str], ...]
    runbook: str | None = None
    kind: str = "timeseries"
    stacked: bool = False
    width: int = 12


@dataclass(frozen=True, slots=True)
class Board:
    """``variables`` beside data source, job and instance: (name, metric that has the label)."""

    uid: str
    title: str
    meaning: str
    variables: tuple[tuple[str, str], ...]
    panels: tuple[Panel, ...]


STREAM = ("stream", "headrace_stream_shards")
GROUP = ("group", "headrace_group_lag_messages")
TABLE = ("table", "headrace_table_version")
RATE = "[$__rate_interval]"


def rate(metric: str, matchers: str, by: str) -> str:
    return f"sum by ({by}) (rate({metric}{{{matchers}}}{RATE}))"


OVERVIEW = Board(
    "headrace-overview",
    "Headrace / Overview",
    "Is data flowing, is it fresh, is anything lost?",
    (STREAM, GROUP, TABLE),
    (
        Panel(
            "Acknowledged",
            "User records acknowledged, all streams",
            RECORDS_PER_S,
            ((f"sum(rate(headrace_producer_records_acknowledged_total{{@S}}{RATE}))", "records"),),
            kind="stat",
            width=6,
        ),
        Panel(
            "Handled",
            "User records handled by consumers",
            RECORDS_PER_S,
            ((f"sum(rate(headrace_consumer_records_handled_total{{@G}}{RATE}))", "records"),),
            kind="stat",
            width=6,
        ),
        Panel(
            "Behind",
            "Age of the newest record handled, worst group",
            SECONDS,
            (("max(headrace_consumer_behind_seconds{@G})", "behind"),),
            "freshness",
            "stat",
            width=6,
        ),
        Panel(
            "Dead letters",
            "Dead letters kept, all streams",
            RECORDS,
            (("sum(headrace_stream_dead_letters_kept{@S})", "kept"),),
            "dead-letters",
            "stat",
            width=6,
        ),
        Panel(
            "Flow, from put to table",
            "Each step's rate; a step that stays below the one before it builds up lag",
            RECORDS_PER_S,
            (
                (rate("headrace_producer_records_acknowledged_total", "@S", "stream"), "{{stream}} acknowledged"),
                (rate("headrace_consumer_records_handled_total", "@G", "stream, group"), "{{stream}} {{group}} handled"),
                (rate("headrace_table_input_rows_total", "@T", "table"), "{{table}} read"),
            ),
        ),
        Panel(
            "Conservation of records, from put to gold",
            "Totals since each process started (producers, consumers) or the table was made: what was acknowledged is handled, "
            "a repeat, or a dead letter",
            RECORDS,
            (
                ("sum by (stream) (headrace_producer_records_acknowledged_total{@S})", "{{stream}} acknowledged"),
                ("sum by (stream, group) (headrace_consumer_records_handled_total{@G})", "{{stream}} {{group}} handled"),
                ("sum by (stream, group) (headrace_consumer_dead_letters_total{@G})", "{{stream}} {{group}} dead letters"),
                ("sum by (table) (headrace_table_records{@T})", "{{table}} records"),
                ("sum by (table) (headrace_table_rejected{@T})", "{{table}} rejected"),
            ),
        ),
        Panel(
            "Lag",
            "Messages that groups have not committed, seen from outside",
            MESSAGES,
            (("sum by (stream, group) (headrace_group_lag_messages{@G})", "{{stream}} {{group}}"),),
            "lag-growing",
        ),
        Panel(
            "Records failed",
            "Records whose receipt failed: their callers were told",
            RECORDS_PER_S,
            ((rate("headrace_producer_records_failed_total", "@S", "stream"), "{{stream}}"),),
        ),
        Panel(
            "Endpoints that answer",
            "Processes that Prometheus scrapes, by what they do",
            "short",
            (("sum by (role) (up{@A})", "{{role}}"),),
            "scrape-gone",
        ),
    ),
)

PRODUCERS = Board(
    "headrace-producers",
    "Headrace / Producers",
    "Rates, buffers, acknowledgement times, retries",
    (STREAM,),
    (
        Panel(
            "Records acknowledged",
            "User records a second",
            RECORDS_PER_S,
            ((rate("headrace_producer_records_acknowledged_total", "@S", "stream"), "{{stream}}"),),
        ),
        Panel(
            "Bytes sent",
            "Before compression, those sent again included",
            "Bps",
            ((rate("headrace_producer_sent_bytes_total", "@S", "stream"), "{{stream}}"),),
        ),
        Panel(
            "User records per aggregate",
            "How well records are packed",
            "short",
            (
                (
                    "sum by (stream) (rate(headrace_producer_records_acknowledged_total{@S}[$__rate_interval])) / "
                    "sum by (stream) (rate(headrace_producer_aggregates_sent_total{@S}[$__rate_interval]))",
                    "{{stream}}",
                ),
            ),
        ),
        Panel(
            "Time to acknowledgement",
            "From an aggregate's first record to its acknowledgement",
            SECONDS,
            tuple(
                (
                    f"histogram_quantile({q}, sum by (stream, le) "
                    "(rate(headrace_producer_aggregate_age_seconds_bucket{@S}[$__rate_interval])))",
                    f"{{{{stream}}}} p{p}",
                )
                for q, p in (("0.5", 50), ("0.99", 99))
            ),
        ),
        Panel(
            "Buffered records",
            "Put and not yet acknowledged",
            RECORDS,
            (("sum by (stream) (headrace_producer_buffered_records{@S})", "{{stream}}"),),
        ),
        Panel(
            "Buffered bytes",
            "What they take of buffer_bytes_max",
            "bytes",
            (("sum by (stream) (headrace_producer_buffered_bytes{@S})", "{{stream}}"),),
        ),
        Panel(
            "Barriers",
            "Barriers on the control log",
            "ops",
            ((rate("headrace_producer_barrier_seconds_count", "@S", "stream"), "{{stream}}"),),
        ),
        Panel(
            "Barrier time",
            "What a barrier on the control log adds to every acknowledgement",
            SECONDS,
            tuple(
                (
                    f"histogram_quantile({q}, sum by (stream, le) "
                    "(rate(headrace_producer_barrier_seconds_bucket{@S}[$__rate_interval])))",
                    f"{{{{stream}}}} p{p}",
                )
                for q, p in (("0.5", 50), ("0.99", 99))
            ),
        ),
        Panel(
            "Sent again after a seal",
            "User records whose shard was sealed before them",
            RECORDS_PER_S,
            ((rate("headrace_producer_void_records_resent_total", "@S", "stream"), "{{stream}}"),),
            "void-rate",
        ),
        Panel(
            "Clients replaced",
            "Kafka clients replaced after a fatal error",
            "ops",
            ((rate("headrace_producer_client_failures_total", "@S", "stream"), "{{stream}}"),),
        ),
        Panel(
            "Throttled",
            "Part of the time for which brokers told clients to wait (quotas)",
            "percentunit",
            ((rate("headrace_client_throttled_seconds_total", "@A", "client"), "{{client}}"),),
        ),
    ),
)

CONSUMERS = Board(
    "headrace-consumers",
    "Headrace / Consumers and lag",
    "Lag, freshness, commits, rebalances",
    (STREAM, GROUP),
    (
        Panel(
            "Lag",
            "Messages not committed, by group, seen from outside",
            MESSAGES,
            (("sum by (stream, group) (headrace_group_lag_messages{@G})", "{{stream}} {{group}}"),),
            "lag-growing",
        ),
        Panel(
            "Lag by shard",
            "The ten largest",
            MESSAGES,
            (("topk(10, sum by (stream, group, shard) (headrace_group_lag_messages{@G}))", "{{group}} {{shard}}"),),
            "lag-growing",
        ),
        Panel(
            "Behind newest",
            "Age of the newest record handled while there are newer ones (Kinesis: MillisBehindLatest)",
            SECONDS,
            (("max by (stream, group) (headrace_consumer_behind_seconds{@G})", "{{stream}} {{group}}"),),
            "freshness",
        ),
        Panel(
            "Records handled",
            "User records a second",
            RECORDS_PER_S,
            ((rate("headrace_consumer_records_handled_total", "@G", "stream, group"), "{{stream}} {{group}}"),),
        ),
        Panel(
            "Repeats and voids",
            "Left out, as they should be",
            RECORDS_PER_S,
            (
                (rate("headrace_consumer_repeats_dropped_total", "@G", "stream, group"), "{{group}} repeats"),
                (rate("headrace_consumer_voids_skipped_total", "@G", "stream, group"), "{{group}} voids"),
            ),
        ),
        Panel(
            "Dead letters",
            "Put into the dead letters",
            RECORDS_PER_S,
            ((rate("headrace_consumer_dead_letters_total", "@G", "stream, group"), "{{stream}} {{group}}"),),
            "dead-letters",
        ),
        Panel(
            "Commits",
            "And those that failed",
            "ops",
            (
                (rate("headrace_consumer_commits_total", "@G", "stream, group"), "{{group}} done"),
                (rate("headrace_consumer_commit_failures_total", "@G", "stream, group"), "{{group}} failed"),
            ),
            "checkpoint-failures",
        ),
        Panel(
            "Time of handlers",
            "99th percentile of a record's handling, each try",
            SECONDS,
            (
                (
                    "histogram_quantile(0.99, sum by (stream, group, le) "
                    "(rate(headrace_consumer_handler_seconds_bucket{@G}[$__rate_interval])))",
                    "{{stream}} {{group}}",
                ),
            ),
            "freshness",
        ),
        Panel(
            "Retries",
            "Handlers called again after they raised",
            "ops",
            ((rate("headrace_consumer_retries_total", "@G", "stream, group"), "{{stream}} {{group}}"),),
            "dead-letters",
        ),
        Panel(
            "Rebalances",
            "Assignments that gave a member partitions",
            "ops",
            ((rate("headrace_consumer_rebalances_total", "@G", "stream, group"), "{{stream}} {{group}}"),),
        ),
    ),
)
