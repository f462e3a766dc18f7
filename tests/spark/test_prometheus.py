"""Held to the truth: a real Prometheus scrapes a real run, and every expression of every dashboard and alert is asked of it."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import yaml

from jobs.maintain import maintain
from pipeline import Consumer, Producer, reshard
from pipeline.watch.exporter import Exporter

ROOT = Path(__file__).parents[2]
DOCKER = ROOT / "docker"
BOARDS = [json.loads(path.read_text()) for path in sorted((DOCKER / "grafana" / "dashboards").glob("*.json"))]
RULES = yaml.safe_load((DOCKER / "prometheus" / "rules" / "headrace.yml").read_text())
DEADLINE_S = 90


@dataclass
class Prometheus:
    url: str

    def ask(self, expression: str, at_s: float | None = None) -> list[tuple[dict[str, str], float]]:
        """An instant query. Raises on an error of any kind."""
        query = {"query": expression} | ({} if at_s is None else {"time": str(at_s)})
        answer = self.get(f"/api/v1/query?{urllib.parse.urlencode(query)}")
        assert answer["status"] == "success", answer
        assert not answer.get("warnings"), answer
        return [(one["metric"], float(one["value"][1])) for one in answer["data"]["result"]]

    def one(self, expression: str) -> float | None:
        found = self.ask(expression)
        return found[0][1] if len(found) == 1 else None

    def get(self, path: str) -> Any:
        try:
            with urllib.request.urlopen(self.url + path, timeout=20) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{urllib.parse.unquote(path)}: {error.read().decode()}") from error


def until(condition: Callable[[], Any], what: Callable[[], str]) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, what()
        time.sleep(0.2)


@contextmanager
def prometheus(folder: Path, home: Path) -> Iterator[Prometheus]:
    """With the configuration and rules of docker/, its own folder of targets, and quick scrapes."""
    assert shutil.which("prometheus"), "prometheus is missing: run `apt-get update && apt-get install -y prometheus`"
    settings = yaml.safe_load((DOCKER / "prometheus" / "prometheus.yml").read_text())
    settings["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    settings["rule_files"] = [str(DOCKER / "prometheus" / "rules" / "*.yml")]
    del settings["alerting"]
    ours = next(one for one in settings["scrape_configs"] if one["job_name"] == "headrace")
    ours["file_sd_configs"] = [{"files": [str(home / "metrics" / "*.json")], "refresh_interval": "1s"}]
    settings["scrape_configs"] = [ours]
    folder.mkdir()
    (folder / "prometheus.yml").write_text(yaml.safe_dump(settings))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    with (folder / "log").open("wb") as output:
        process = subprocess.Popen(
            [
                "prometheus", f"--config.file={folder / 'prometheus.yml'}", f"--storage.tsdb.path={folder / 'data'}",
                f"--web.listen-address={address}", "--log.level=warn",
            ],
            stdout=output, stderr=output,
        )  # fmt: skip
    try:
        yield Prometheus(f"http://{address}")
    finally:
        process.terminate()
        process.wait(20)


def panel_expressions(stream: str) -> list[str]:
    """Every panel's, with the variables as Grafana would fill them in."""
    found = [target["expr"] for board in BOARDS for panel in board["panels"] for target in panel["targets"]]
    filled = [one.replace("$__rate_interval", "1m").replace("$stream", stream) for one in found]
    return sorted({re.sub(r"\$(job|instance|group|table)", ".*", one) for one in filled})


def rule_expressions() -> list[str]:
    return [rule["expr"] for group in RULES["groups"] for rule in group["rules"]]


def consume_and_be_killed(config: Any, stream: str, group: str) -> int:
    """A consumer process that handles some records and dies by SIGKILL; its endpoint's entry stays behind."""
    code = (
        "import sys, time\nfrom pipeline import Consumer\nfrom pipeline.config import load_config\n"
        "with Consumer(sys.argv[2], group=sys.argv[3], config=load_config(sys.argv[1])) as c:\n"
        "    while not c.read():\n        pass\n"
        "    c.read(); c.commit(); print('ready', flush=True); time.sleep(600)\n"
    )
    child = subprocess.Popen([sys.executable, "-c", code, str(config.path), stream, group], stdout=subprocess.PIPE, text=True)
    try:
        assert child.stdout is not None
        assert child.stdout.readline().strip() == "ready"
    finally:
        os.kill(child.pid, signal.SIGKILL)
        child.wait(20)
    return child.pid


def test_every_expression_answers_and_counts_agree_with_a_real_run(stack: Any, lake: Callable[..., Any], tmp_path: Path) -> None:
    ordered = {"function": "tests.spark.functions:seen", "state": "count int, last int"}
    output = {"output": "item string, number int, count int, before int"}
    tables = {
        "gold.count": {"from": "silver.orders", "sql": "count.sql", "mode": "refresh"},
        "silver.seen": {"from": "bronze.orders", "ordered": ordered | output},  # one with a state, and so with late rows
    }
    shop = lake(shards=2, tables=tables)
    (shop.folder / "count.sql").write_text("SELECT count(*) AS n FROM silver.orders")
    config, stream = shop.config, shop.stream
    stop = threading.Event()
    exporter = Exporter(config)
    surveys = threading.Thread(target=exporter.run, args=(stop, 0.5))
    surveys.start()
    try:
        with prometheus(tmp_path / "prometheus", stack.home) as prom, Producer(stream, config=config, linger_ms=1) as producer:
            put_and_flush(producer, range(60))
            killed = consume_and_be_killed(config, stream, "killed")
            reshard.split(stream, "s0", config=config)
            put_and_flush(producer, range(60, 100))
            with Consumer(stream, group="alive", config=config) as consumer:
                assert consumer.run(refuse_one, retries=0, max_records=100) == 100
                assert consumer.read(1.0) == []  # what is no record (a void, an END) may lie behind the last one
                consumer.commit()
                shop.run("bronze.orders", "silver.orders", "gold.count")
                shop.run("silver.seen")
                maintain(shop.spark, config, ["bronze.orders"])
                for expression, expected in counts(stream).items():
                    until(
                        lambda: prom.one(expression) == expected,  # noqa: B023
                        lambda: f"{expression}: {prom.ask(expression)}, not {expected}",  # noqa: B023
                    )
                every = panel_expressions(stream)
                empty: list[str] = []

                def all_have_data() -> bool:
                    empty[:] = [one for one in every if not prom.ask(one)]
                    return not empty

                until(all_have_data, lambda: f"no data: {empty}")
            seen_lag = prom.one(f'sum(headrace_group_lag_messages{{stream="{stream}", group="killed"}})')
            assert seen_lag
            assert seen_lag > 0, "nobody reads for the killed group, and its lag is seen all the same"
            assert not psutil.pid_exists(killed)
            check_rules(prom)
            yesterday = time.time() - 86_400
            for expression in [*every, *rule_expressions()]:
                prom.ask(expression, yesterday)  # an empty database is no error
    finally:
        stop.set()
        surveys.join(30)


def counts(stream: str) -> dict[str, int]:
    """What was put, handled, refused and split below, as Prometheus has to know it."""
    return {
        f'sum(headrace_producer_records_acknowledged_total{{stream="{stream}"}})': 100,
        f'sum(headrace_consumer_records_handled_total{{stream="{stream}", group="alive"}})': 100,
        f'sum(headrace_consumer_dead_letters_total{{stream="{stream}"}})': 1,
        f'sum(headrace_stream_dead_letters_kept{{stream="{stream}"}})': 1,
        f'headrace_stream_shards{{stream="{stream}", state="open"}}': 3,
        f'headrace_stream_shards{{stream="{stream}", state="sealed"}}': 1,
        f'sum(headrace_group_lag_messages{{stream="{stream}", group="alive"}})': 0,
        'headrace_table_records{table="bronze.orders"}': 100,
        'headrace_table_records{table="silver.orders"}': 7,
        "headrace_registry_ready": 1,
    }


def put_and_flush(producer: Producer, numbers: range) -> None:
    for number in numbers:
        producer.put({"item": f"k{number % 7}", "number": number, "note": None}, f"k{number % 7}")
        if number % 5 == 0:
            producer.flush(20)  # several messages
    producer.flush(20)


def refuse_one(record: Any) -> None:
    if record.value["number"] == 3:
        raise ValueError("no")


def check_rules(prom: Prometheus) -> None:
    """Prometheus evaluates every rule without an error, and every metric that a rule rests on is there."""
    rules = [rule for group in prom.get("/api/v1/rules")["data"]["groups"] for rule in group["rules"]]
    assert len(rules) == len(rule_expressions())
    assert {rule["health"] for rule in rules} == {"ok"}, [rule["lastError"] for rule in rules if rule["health"] != "ok"]
    for expression in rule_expressions():
        prom.ask(expression)
        for name in set(re.findall(r"\b(headrace_[a-z_]+|up)\b(?!:)", re.sub(r"stream_group:\S+", "", expression))):
            assert prom.ask(name), f"{name}: no data, and an alert rests on it"
