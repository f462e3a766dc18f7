"""Only processes that are ours are found, and only those are signalled."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from pipeline.local.paths import Home, write_json
from pipeline.local.processes import Running, find_all, is_alive, marks, recorded, spawn, stop

STUBBORN = "import signal, sys, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('ready', flush=True); time.sleep(60)"
TIDY = (
    "import signal, sys, time; signal.signal(signal.SIGTERM, lambda *_: sys.exit()); print('ready', flush=True); time.sleep(60)"
)
PATIENT = "import time; print('ready', flush=True); time.sleep(60)"


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    place = Home.find(tmp_path / "home")
    place.prepare()
    yield place
    stop(place, find_all(place), grace_s=0.1)


def until(condition: Callable[[], bool], timeout_s: float = 10) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "the condition was not met in time"
        time.sleep(0.01)


def start(home: Home, name: str = "kafka", code: str = PATIENT) -> Running:
    output = home.logs / f"{name}.out"
    running = spawn(home, name, [sys.executable, "-c", code, *marks(home, name)], environment={}, output=output)
    until(lambda: output.read_text() == "ready\n")
    return running


def test_a_started_process_is_recorded_and_found(home: Home) -> None:
    running = start(home)
    assert recorded(home, "kafka") == running
    assert find_all(home) == [running]


def test_a_started_process_is_in_a_session_of_its_own(home: Home) -> None:
    assert os.getsid(start(home).pid) != os.getsid(0)


def test_a_process_that_ended_is_not_recorded_though_its_file_is_there(home: Home) -> None:
    running = start(home)
    psutil.Process(running.pid).kill()
    until(lambda: not is_alive(running))
    assert (home.run / "kafka.json").exists()
    assert recorded(home, "kafka") is None


def test_a_pid_that_now_belongs_to_a_stranger_is_not_ours_when_the_start_differs(home: Home) -> None:
    running = start(home)
    write_json(home.run / "kafka.json", {"name": "kafka", "pid": running.pid, "started_at": running.started_at - 60})
    assert recorded(home, "kafka") is None


def test_a_pid_that_now_belongs_to_a_stranger_is_not_ours_when_its_command_line_differs(home: Home) -> None:
    with subprocess.Popen([sys.executable, "-c", PATIENT], stdout=subprocess.DEVNULL) as stranger:
        started_at = psutil.Process(stranger.pid).create_time()
        write_json(home.run / "kafka.json", {"name": "kafka", "pid": stranger.pid, "started_at": started_at})
        assert recorded(home, "kafka") is None
        assert find_all(home) == []
        stranger.kill()


def test_a_process_without_a_record_is_found_by_its_home(home: Home) -> None:
    running = start(home)
    (home.run / "kafka.json").unlink()
    assert find_all(home) == [running]


def test_a_process_of_another_home_is_not_found_even_if_its_path_begins_alike(home: Home) -> None:
    start(home)
    assert find_all(Home(home.root.with_name("hom"))) == []
    assert find_all(Home(home.root / "x")) == []


@pytest.mark.parametrize("content", ["", "{", "[]", '{"pid": "x"}', '{"pid": 1}'])
def test_a_damaged_record_counts_as_none(home: Home, content: str) -> None:
    (home.run / "kafka.json").write_text(content)
    assert recorded(home, "kafka") is None


def test_stop_ends_a_process_that_listens_and_removes_its_record(home: Home) -> None:
    running = start(home)
    assert stop(home, [running], grace_s=10) == []
    assert not psutil.pid_exists(running.pid)
    assert not (home.run / "kafka.json").exists()


def test_stop_kills_and_reports_a_process_that_ignores_the_request(home: Home) -> None:
    running = start(home, code=STUBBORN)
    assert stop(home, [running], grace_s=0.3) == [running]
    assert not is_alive(running)


def test_stop_ends_a_frozen_process_without_killing_it(home: Home) -> None:
    running = start(home, code=TIDY)
    psutil.Process(running.pid).send_signal(signal.SIGSTOP)
    assert stop(home, [running], grace_s=10) == []
    assert not is_alive(running)
