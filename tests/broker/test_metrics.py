"""Metrics of a real producer and consumer: what is counted, and where it is found."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Callable
from typing import Any

from typer.testing import CliRunner

from pipeline import Consumer, Producer
from pipeline.cli.main import app
from pipeline.config import Config


def get(url: str) -> str:
    with urllib.request.urlopen(url, timeout=10) as answer:
        return answer.read().decode()


def test_status_finds_the_endpoint_of_a_running_producer_and_its_counts_agree_with_what_was_put(
    stack: Any, order_config: Callable[..., tuple[Config, str]]
) -> None:
    config, name = order_config()
    with Producer(name, config=config) as producer, Consumer(name, group="g", config=config) as consumer:
        for number in range(50):
            producer.put({"item": "a", "number": number}, "a")
        producer.flush(20)
        assert consumer.run(lambda _: None, max_records=50) == 50
        found = json.loads(CliRunner().invoke(app, ["status", "--json"]).stdout)["metrics"]
        ours = [url for endpoint, url in found.items() if not endpoint.startswith("registry")]
        assert len(ours) == 1
        text = get(ours[0])
    assert f'headrace_producer_records_acknowledged_total{{stream="{name}"}} 50.0' in text
    assert f'headrace_consumer_records_handled_total{{group="g",stream="{name}"}} 50.0' in text
    assert "headrace_registry_ready 1.0" in get(found["registry"])
    assert len(list((stack.home / "metrics").glob("registry-*.json"))) == 1
