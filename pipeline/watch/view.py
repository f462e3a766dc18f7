"""What `headrace top` shows, made from the figures of two moments. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pipeline.observe.scrape import Figures


@dataclass(frozen=True, slots=True)
class Moment:
    """Figures and when they were taken: ``clock_s`` for rates, ``at_s`` (since the epoch) for ages."""

    figures: Figures
    clock_s: float
    at_s: float


def view(before: Moment | None, now: Moment) -> dict[str, Any]:
    """Streams with their shards and groups, tables, endpoints that do not answer. Rates are None without a moment before."""
    figures = now.figures
    names = {key[0] for name in _OF_STREAMS for key in figures.by(name, "stream")}
    return {
        "streams": [_stream(name, before, now) for name in sorted(names)],
        "tables": [_table(key[0], now) for key in sorted(figures.by("headrace_table_version", "table"))],
        "silent": sorted(figures.silent),
    }


_OF_STREAMS = (
    "headrace_stream_shards",
    "headrace_producer_records_acknowledged_total",
    "headrace_consumer_records_handled_total",
)


def _stream(name: str, before: Moment | None, now: Moment) -> dict[str, Any]:
    figures = now.figures
    states = {
        state: int(count)
        for (stream, state), count in figures.by("headrace_stream_shards", "stream", "state").items()
        if stream == name
    }
    return {
        "stream": name,
        "records_per_s": _rate("headrace_producer_records_acknowledged_total", before, now, stream=name),
        "bytes_per_s": _rate("headrace_producer_sent_bytes_total", before, now, stream=name),
        "acknowledged": int(_value(figures, "headrace_producer_records_acknowledged_total", stream=name)),
        "failed": int(_value(figures, "headrace_producer_records_failed_total", stream=name)),
        "buffered": int(_value(figures, "headrace_producer_buffered_records", stream=name)),
        "shards_by_state": states,
        "pending_reshards": int(_value(figures, "headrace_stream_pending_reshards", stream=name)),
        "dead_letters": int(_value(figures, "headrace_stream_dead_letters_kept", stream=name)),
        "hot_keys": dict(sorted(_of(figures, "headrace_producer_top_keys_share_ratio", name, "rank").items())),
        "shards": _shards(name, before, now),
        "groups": _groups(name, before, now),
    }


def _shards(name: str, before: Moment | None, now: Moment) -> list[dict[str, Any]]:
    share = _of(now.figures, "headrace_stream_shard_hash_share_ratio", name, "shard")
    messages = _of(now.figures, "headrace_stream_shard_messages", name, "shard")
    records = _of(now.figures, "headrace_producer_shard_records_total", name, "shard")
    return [
        {
            "shard": shard,
            "share": share.get(shard),
            "messages": int(messages.get(shard, 0)),
            "records_per_s": _rate("headrace_producer_shard_records_total", before, now, stream=name, shard=shard),
        }
        for shard in sorted({*share, *records}, key=lambda one: (len(one), one))
    ]


def _groups(name: str, before: Moment | None, now: Moment) -> list[dict[str, Any]]:
    lags = now.figures.by("headrace_group_lag_messages", "stream", "group", "shard")
    members = _of(now.figures, "headrace_consumer_records_handled_total", name, "group")
    behind = now.figures.by("headrace_consumer_behind_seconds", "stream", "group", combine=max)
    groups = {group for stream, group, _ in lags if stream == name} | set(members)
    return [
        {
            "group": group,
            "records_per_s": _rate("headrace_consumer_records_handled_total", before, now, stream=name, group=group),
            "handled": int(members.get(group, 0)),
            "lag": {shard: int(lag) for (stream, of, shard), lag in sorted(lags.items()) if (stream, of) == (name, group)},
            "behind_s": behind.get((name, group)),
            "gated_shards": int(_value(now.figures, "headrace_consumer_gated_shards", stream=name, group=group)),
            "dead_letters": int(_value(now.figures, "headrace_consumer_dead_letters_total", stream=name, group=group)),
        }
        for group in sorted(groups)
    ]


def _table(name: str, now: Moment) -> dict[str, Any]:
    figures = now.figures
    committed = _value(figures, "headrace_table_committed_timestamp_seconds", table=name)
    return {
        "table": name,
        "version": int(_value(figures, "headrace_table_version", table=name)),
        "records": int(_value(figures, "headrace_table_records", table=name)),
        "rejected": int(_value(figures, "headrace_table_rejected", table=name)),
        "behind_messages": int(_value(figures, "headrace_table_behind_messages", table=name)),
        "files": int(_value(figures, "headrace_table_files", table=name)),
        "committed_s_ago": round(max(0.0, now.at_s - committed), 3) if committed else None,
    }


def _of(figures: Figures, metric: str, stream: str, label: str) -> dict[str, float]:
    return {key: value for (of, key), value in figures.by(metric, "stream", label).items() if of == stream}


def _value(figures: Figures, metric: str, **labels: str) -> float:
    return figures.by(metric, *labels).get(tuple(labels.values()), 0.0)


def _rate(metric: str, before: Moment | None, now: Moment, **labels: str) -> float | None:
    """A second; None where there is nothing to compare with. A counter that fell started anew (a process ended): counted as 0."""
    if before is None or now.clock_s <= before.clock_s:
        return None
    grown = _value(now.figures, metric, **labels) - _value(before.figures, metric, **labels)
    return round(max(0.0, grown) / (now.clock_s - before.clock_s), 3)
