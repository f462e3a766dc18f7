from __future__ import annotations

import json
import logging
import multiprocessing
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client import REGISTRY

from pipeline import metrics
from pipeline.config import Config
from pipeline.config.model import MetricsSettings
from pipeline.observe import endpoint, targets

CODE = """
import sys
import time
from pipeline.config import Config
from pipeline.observe.endpoint import serve
print(serve(Config.model_validate({"metrics": {"port": int(sys.argv[1])}}), "producer"), flush=True)
sys.stdin.readline()
"""


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("HEADRACE_HOME", str(tmp_path))
    yield tmp_path
    targets.remove(tmp_path, os.getpid())


def get(url: str) -> str:
    with urllib.request.urlopen(url, timeout=10) as answer:
        return answer.read().decode()


def other_process(port: int) -> tuple[subprocess.Popen[str], str]:
    child = subprocess.Popen([sys.executable, "-c", CODE, str(port)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    return child, child.stdout.readline().strip()


def end(child: subprocess.Popen[str], kill: bool = False) -> None:
    if kill:
        child.kill()
    child.communicate("\n", timeout=20)


def test_a_process_serves_one_endpoint_for_all_that_it_runs(home: Path) -> None:
    first = endpoint.serve(Config(), "producer")
    second = endpoint.serve(Config(), "consumer")
    assert first is not None
    assert first == second
    metrics.RECORDS_ACKNOWLEDGED.labels("one-endpoint").inc(7)
    assert 'headrace_producer_records_acknowledged_total{stream="one-endpoint"} 7.0' in get(first)
    assert "headrace_producer_records_acknowledged_created" not in get(first)
    assert 'stream="one-endpoint"' in get(f"{first}?name[]=headrace_producer_records_acknowledged_total")
    assert [one.url for one in targets.running(home)] == [first]


def test_the_endpoint_is_on_loopback_unless_configured_otherwise(home: Path) -> None:
    url = endpoint.serve(Config(), "producer")
    assert url is not None
    assert url.startswith("http://127.0.0.1:")


def test_nothing_is_served_where_metrics_are_off(home: Path) -> None:
    assert endpoint.serve(Config(metrics=MetricsSettings(enabled=False)), "producer") is None
    assert targets.running(home) == []


def test_a_process_whose_port_is_taken_takes_a_free_one_and_goes_on(home: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        child, url = other_process(port)
        try:
            assert not url.endswith(f":{port}/metrics")
            assert "python_info" in get(url)
        finally:
            end(child)


def test_a_process_that_ends_takes_its_entry_with_it_and_one_that_is_killed_is_cleared_by_whoever_looks(home: Path) -> None:
    ending, _ = other_process(0)
    killed, url = other_process(0)
    assert {one.pid for one in targets.running(home)} == {ending.pid, killed.pid}
    end(ending)
    assert [one.url for one in targets.running(home)] == [url]
    end(killed, kill=True)
    assert len(list((home / "metrics").glob("*.json"))) == 1
    assert targets.running(home) == []
    assert list((home / "metrics").glob("*.json")) == []


def test_an_entry_whose_pid_is_now_another_process_is_cleared(home: Path) -> None:
    us = targets.target_of("producer", os.getpid(), "127.0.0.1:1")
    targets.add(home, targets.Target(us.role, us.pid, us.started_at - 3600, us.host, us.address))
    assert targets.running(home) == []


def test_an_entry_of_another_host_is_left_alone(home: Path) -> None:
    targets.add(home, targets.Target("producer", 2**22 + 1, 0.0, "elsewhere", "elsewhere:9"))
    assert [one.host for one in targets.running(home)] == ["elsewhere"]


def test_a_damaged_entry_is_cleared(home: Path) -> None:
    (home / "metrics").mkdir()
    (home / "metrics" / "producer-x-1.json").write_text("{")
    assert targets.running(home) == []


def test_an_entry_is_what_prometheus_file_sd_reads(home: Path) -> None:
    path = targets.add(home, targets.target_of("producer", os.getpid(), "127.0.0.1:1"))
    (group,) = json.loads(path.read_text())
    assert group["targets"] == ["127.0.0.1:1"]
    kept = {name: value for name, value in group["labels"].items() if not name.startswith("__")}
    assert kept == {"job": "headrace", "role": "producer"}  # a pid would make new series at each start


def test_where_the_folder_cannot_be_written_the_process_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("HEADRACE_HOME", str(tmp_path / "file"))
    with caplog.at_level(logging.WARNING):
        assert endpoint.serve(Config(), "producer") is None
    assert "no metrics endpoint" in caplog.text


def _child(pipe: object) -> None:
    url = endpoint.serve(Config(), "producer")
    pipe.send((url, get(url or "")))  # type: ignore[attr-defined]


def test_a_forked_child_has_an_endpoint_of_its_own_and_does_not_tell_its_parents_counts(home: Path) -> None:
    url = endpoint.serve(Config(), "producer")
    metrics.RECORDS_ACKNOWLEDGED.labels("forked").inc(3)
    ours, theirs = multiprocessing.Pipe()
    child = multiprocessing.get_context("fork").Process(target=_child, args=(theirs,))
    child.start()
    assert ours.poll(20)
    child_url, text = ours.recv()
    child.join(20)
    assert child_url != url
    assert 'stream="forked"' not in text
    assert 'records_acknowledged_total{stream="forked"} 3.0' in get(url or "")


def test_more_scrapes_at_once_than_the_bound_are_turned_away_and_the_next_ones_answered(home: Path) -> None:
    url = endpoint.serve(Config(), "producer")
    assert url is not None
    host, port = url.removeprefix("http://").removesuffix("/metrics").split(":")
    idle = [socket.create_connection((host, int(port)), 5) for _ in range(endpoint.SCRAPES_MAX)]
    try:
        with socket.create_connection((host, int(port)), 5) as one_more:
            one_more.settimeout(10)
            assert one_more.recv(1) == b""
    finally:
        for one in idle:
            one.close()
    for _ in range(200):  # the closed ones give their places back
        try:
            assert "python_info" in get(url)
            break
        except OSError:
            continue
    else:
        raise AssertionError("the endpoint did not answer again")


class Holder:
    def __init__(self, value: float) -> None:
        self.value = value

    def read(self) -> list[metrics.Sample]:
        return [(metrics.BUFFERED_RECORDS, ("live",), 1 / self.value)]


def test_gauges_of_living_objects_are_added_up_and_go_with_them() -> None:
    def value() -> float | None:
        return REGISTRY.get_sample_value("headrace_producer_buffered_records", {"stream": "live"})

    one, two, broken = Holder(1), Holder(0.5), Holder(0)
    for holder in (one, two, broken):
        metrics.LIVE.watch(holder.read)
    assert value() == 3.0
    del one, holder
    assert value() == 2.0
    del two
    assert value() is None


class Aged:
    def __init__(self, age_s: float) -> None:
        self.age_s = age_s

    def read(self) -> list[metrics.Sample]:
        return [(metrics.BEHIND_SECONDS, ("live", "g"), self.age_s)]


def test_of_two_ages_the_older_counts() -> None:
    held = [Aged(2.0), Aged(5.0), Aged(1.0)]
    for one in held:
        metrics.LIVE.watch(one.read)
    assert REGISTRY.get_sample_value("headrace_consumer_behind_seconds", {"stream": "live", "group": "g"}) == 5.0


def test_a_short_job_hands_its_metrics_to_the_pushgateway(home: Path, tmp_path: Path) -> None:
    assert shutil.which("prometheus-pushgateway"), "missing: run `apt-get update && apt-get install -y prometheus-pushgateway`"
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    gateway = subprocess.Popen(
        ["prometheus-pushgateway", f"--web.listen-address={address}"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        until_answers(f"http://{address}/-/ready")
        metrics.RECORDS_ACKNOWLEDGED.labels("pushed").inc(11)
        endpoint.push(Config(metrics=MetricsSettings(pushgateway=f"http://{address}")), "jobs")
        text = get(f"http://{address}/metrics")
    finally:
        gateway.terminate()
        gateway.wait(20)
    (line,) = [one for one in text.splitlines() if 'stream="pushed"' in one and "acknowledged_total" in one]
    assert 'job="headrace"' in line
    assert 'role="jobs"' in line
    assert line.endswith(" 11")


def test_a_pushgateway_that_is_away_is_a_warning_and_no_more(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        endpoint.push(Config(metrics=MetricsSettings(pushgateway="http://127.0.0.1:9")), "jobs")
    assert "were not pushed" in caplog.text


def until_answers(url: str, timeout_s: float = 20) -> None:
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            get(url)
            return
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)
