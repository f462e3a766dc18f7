"""Metrics of a real producer, consumer and exporter: what is counted, and where it is found."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Callable
from typing import Any

from prometheus_client import REGISTRY
from typer.testing import CliRunner

from pipeline import Consumer, Producer, reshard
from pipeline.cli.main import app
from pipeline.config import Config
from pipeline.watch.exporter import Exporter

Make = Callable[..., tuple[Config, str]]


def get(url: str, accept: str = "text/plain") -> str:
    with urllib.request.urlopen(urllib.request.Request(url, headers={"Accept": accept}), timeout=10) as answer:
        return answer.read().decode()


def value(name: str, **labels: str) -> float | None:
    return REGISTRY.get_sample_value(name, labels)


def put(producer: Producer, numbers: range) -> None:
    for number in numbers:
        producer.put({"item": f"k{number % 20}", "number": number}, f"k{number % 20}")
    producer.flush(20)


def test_status_finds_the_endpoint_of_a_running_producer_and_its_counts_agree_with_what_was_put(
    stack: Any, order_config: Make
) -> None:
    config, name = order_config()
    with Producer(name, config=config) as producer, Consumer(name, group="g", config=config) as consumer:
        put(producer, range(50))
        assert consumer.run(lambda _: None, max_records=50) == 50
        found = json.loads(CliRunner().invoke(app, ["status", "--json"]).stdout)["metrics"]
        ours = [url for endpoint, url in found.items() if not endpoint.startswith("registry")]
        assert len(ours) == 1
        text = get(ours[0])
        exemplars = get(ours[0], "application/openmetrics-text; version=1.0.0")
    assert f'headrace_producer_records_acknowledged_total{{stream="{name}"}} 50.0' in text
    assert f'headrace_consumer_records_handled_total{{group="g",stream="{name}"}} 50.0' in text
    assert "headrace_registry_ready 1.0" in get(found["registry"])
    assert len(list((stack.home / "metrics").glob("registry-*.json"))) == 1
    buckets = [line for line in exemplars.splitlines() if line.startswith("headrace_producer_aggregate_age_seconds_bucket")]
    assert any(" # {" in line and 'shard="s' in line and 'offset="' in line for line in buckets if name in line)


def test_figures_by_shard_are_those_of_the_open_shards_and_add_up(order_config: Make) -> None:
    config, name = order_config(shards=2)
    with Producer(name, config=config) as producer:
        put(producer, range(40))
        by_shard = [value("headrace_producer_shard_records_total", stream=name, shard=shard) for shard in ("s0", "s1")]
        assert sum(one or 0 for one in by_shard) == 40
        reshard.split(name, "s0", config=config)
        put(producer, range(40, 80))
        assert value("headrace_producer_shard_records_total", stream=name, shard="s0") is None
        told = [family for family in REGISTRY.collect() if family.name == "headrace_producer_shard_records"]
        samples = [one for one in told[0].samples if one.labels["stream"] == name and one.name.endswith("_total")]
        assert sum(one.value for one in samples) == 40 + (by_shard[1] or 0)


def test_the_exporter_sees_lag_dead_letters_and_shards_while_nobody_else_is_alive(order_config: Make) -> None:
    config, name = order_config(shards=2)
    with Producer(name, config=config, linger_ms=0, records_max=1) as producer:
        put(producer, range(10))
        with Consumer(name, group="away", config=config) as consumer:
            assert consumer.run(_refuse_the_first, retries=0, max_records=10) == 10
        put(producer, range(10, 14))
    reshard.split(name, "s0", config=config)
    exporter = Exporter(config)
    survey = exporter.look()
    assert survey is not None
    (stream,) = survey.streams
    assert stream.problem is None
    assert sum(stream.lags["away"].values()) == 4  # one record a message; END markers are nobody's
    told = {shard: value("headrace_group_lag_messages", stream=name, group="away", shard=shard) for shard in stream.lags["away"]}
    assert told == stream.lags["away"]
    assert value("headrace_stream_dead_letters_kept", stream=name) == 1
    assert value("headrace_consumer_dead_letters_total", stream=name, group="away", reason="ValueError") == 1
    assert value("headrace_stream_shards", stream=name, state="open") == 3
    assert value("headrace_stream_shards", stream=name, state="sealed") == 1
    assert value("headrace_stream_pending_reshards", stream=name) == 0
    shares = [value("headrace_stream_shard_hash_share_ratio", stream=name, shard=one.id) for one in stream.shards]
    assert sum(one or 0 for one in shares) == 1.0


def _refuse_the_first(record: Any) -> None:
    if record.value["number"] == 0:
        raise ValueError("no")


def test_a_consumers_lag_and_its_age_go_to_zero_at_the_end(order_config: Make) -> None:
    config, name = order_config(shards=1)
    labels = {"stream": name, "group": "lagging"}
    with Producer(name, config=config, linger_ms=0, records_max=1) as producer:
        put(producer, range(20))
        with Consumer(name, group="lagging", config=config) as consumer:
            seen = 0
            while seen < 5:
                seen += len(consumer.read())
            consumer.read()
            assert (value("headrace_consumer_lag_messages", **labels) or 0) > 0
            assert (value("headrace_consumer_behind_seconds", **labels) or 0) > 0
            while consumer.read(0.5):
                pass
            assert value("headrace_consumer_lag_messages", **labels) == 0
            assert value("headrace_consumer_behind_seconds", **labels) == 0
