"""`headrace top` and `headrace doctor` on a real broker."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from pipeline import Consumer, Producer
from pipeline.cli.main import app
from pipeline.config import Config

Make = Callable[..., tuple[Config, str]]


def run(config: Config, *arguments: str) -> Any:
    return CliRunner().invoke(app, ["--config", str(config.path), *arguments], env={"HEADRACE_CONFIG": str(config.path)})


def test_top_once_shows_streams_shards_groups_and_rates(order_config: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    config, name = order_config(shards=2)
    monkeypatch.setenv("HEADRACE_CONFIG", str(config.path))
    with Producer(name, config=config, linger_ms=0) as producer, Consumer(name, group="seen", config=config) as consumer:
        for number in range(30):
            producer.put({"item": f"k{number}", "number": number}, f"k{number}")
        producer.flush(20)
        consumer.run(lambda _: None, max_records=30)
        done = run(config, "top", "--once", "--interval", "0.3", "--json")
        assert done.exit_code == 0, done.output
        shown = json.loads(done.stdout)
        (stream,) = [one for one in shown["streams"] if one["stream"] == name]
        assert stream["acknowledged"] == 30
        assert stream["records_per_s"] == 0
        assert {one["shard"] for one in stream["shards"]} == {"s0", "s1"}
        (group,) = stream["groups"]
        assert (group["group"], group["handled"], sum(group["lag"].values())) == ("seen", 30, 0)
        printed = run(config, "top", "--once", "--interval", "0.3")
        assert name in printed.stdout


def check(config: Config, what: str) -> dict[str, str]:
    done = run(config, "doctor", "--json")
    return next(one for one in json.loads(done.stdout)["checks"] if one["what"] == what)


def test_doctor_finds_a_stream_that_was_not_created_and_then_nothing_to_do(
    order_config: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, name = order_config(shards=2)
    monkeypatch.setenv("HEADRACE_CONFIG", str(config.path))
    missing = check(config, f"stream {name}")
    assert (missing["state"], missing["do"]) == ("warning", f"run `headrace stream create {name}`")
    run(config, "stream", "create", name)
    assert check(config, f"stream {name}")["state"] == "ok"
    done = run(config, "doctor")
    assert done.exit_code == 0, done.output
    assert "2 open shards" in done.stdout


def test_doctor_says_what_to_do_where_nothing_runs(order_config: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config, _ = order_config()
    monkeypatch.setenv("HEADRACE_CONFIG", str(config.path))
    monkeypatch.setenv("HEADRACE_HOME", str(tmp_path / "elsewhere"))
    done = run(config, "doctor", "--json")
    assert done.exit_code == 1
    found = {one["what"]: one for one in json.loads(done.stdout)["checks"]}
    assert found["broker"]["state"] == "failed"
    assert "headrace up" in found["broker"]["found"]
    assert found["versions"]["state"] == "ok"


def test_doctor_finds_a_table_that_is_none(order_config: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    config, name = order_config()
    text = config.path.read_text() + f"tables: {{bronze.orders: {{from: {name}}}}}\nwarehouse: lake\n"
    config.path.write_text(text)
    monkeypatch.setenv("HEADRACE_CONFIG", str(config.path))
    assert check(config, "table bronze.orders")["state"] == "ok"
    (config.base / "lake" / "bronze" / "orders").mkdir(parents=True)
    assert check(config, "table bronze.orders")["state"] == "failed"
