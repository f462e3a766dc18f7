"""Streams of their own for the tests of this layer, on the session's real broker and registry."""

from __future__ import annotations

import itertools
import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline.config import Config, load_config

ORDER_SCHEMA: dict[str, Any] = {
    "type": "record",
    "name": "Order",
    "namespace": "shop",
    "fields": [
        {"name": "item", "type": "string"},
        {"name": "number", "type": "int"},
        {"name": "note", "type": ["null", "string"], "default": None},
    ],
}
_numbers = itertools.count(1)


@pytest.fixture
def order_config(stack: Any, tmp_path: Path) -> Callable[..., tuple[Config, str]]:
    """A function that makes a configuration with one stream of orders under a name not used before, and gives both."""

    def make(copies: Sequence[str] = (), **options: Any) -> tuple[Config, str]:
        name = f"orders-{os.getpid()}-{next(_numbers)}"
        (tmp_path / "order.avsc").write_text(json.dumps(ORDER_SCHEMA))
        stream = {"schema": "order.avsc", "shards": 2, "key": "item"} | options
        file = tmp_path / "headrace.yml"
        streams = {name: stream} | {f"{name}-{copy}": stream for copy in copies}
        file.write_text(yaml.safe_dump({"profile": "embedded", "streams": streams}))
        return load_config(file), name

    return make


def _is_stopped(pid: int) -> bool:
    """Each thread stops when it has its turn next: on a busy machine one may answer a request meanwhile. (Linux; elsewhere this
    does not look.)"""
    try:
        return all("(stopped)" in file.read_text() for file in Path(f"/proc/{pid}/task").glob("*/status"))
    except FileNotFoundError:  # a thread ended
        return False


@pytest.fixture
def frozen_broker(stack: Any) -> Iterator[Callable[[], None]]:
    """A function that freezes the session's broker (SIGSTOP); it goes on when the test ends, or by ``thaw``."""
    import signal

    import psutil

    state = json.loads((stack.home / "stack.json").read_text())
    pids = [p["pid"] for p in state["processes"] if p["name"].startswith("kafka")]

    class Frozen:
        def __call__(self) -> None:
            for pid in pids:
                os.kill(pid, signal.SIGSTOP)
            deadline = time.monotonic() + 10
            while not all(map(_is_stopped, pids)):
                assert time.monotonic() < deadline, "the broker did not stop"
                time.sleep(0.001)

        def thaw(self) -> None:
            for pid in pids:
                if psutil.Process(pid).status() == psutil.STATUS_STOPPED:
                    os.kill(pid, signal.SIGCONT)

    frozen = Frozen()
    yield frozen
    frozen.thaw()
