"""A broker whose disk fills up: a real one, its data in a small file system of its own (which takes root to mount)."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from pipeline import Config, Producer, load_config
from pipeline.errors import BrokerUnavailableError, BufferFullError, ClosedError
from pipeline.local import stack as local
from tests.broker.conftest import ORDER_SCHEMA
from tests.broker.test_producer import order, read_entries

STREAM = "orders"
SMALL, LARGE = "6m", "200m"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A folder of a few megabytes."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={SMALL}", "headrace-test", str(folder)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.fail("this test mounts a file system of its own, which takes root: run it as root, or leave it out (--deselect)")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.fixture
def config(small_disk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Config]:
    """A stack whose broker keeps its data there."""
    home = tmp_path / "home"
    monkeypatch.setenv("HEADRACE_HOME", str(home))
    home.mkdir()
    (home / "data").symlink_to(small_disk)
    (tmp_path / "order.avsc").write_text(json.dumps(ORDER_SCHEMA))
    file = tmp_path / "headrace.yml"
    file.write_text(f"streams:\n  {STREAM}: {{schema: order.avsc, shards: 1}}\n")
    local.up(home)
    try:
        yield load_config(file)
    finally:
        local.down(home)


def test_what_was_put_waits_or_fails_in_time_when_the_disk_is_full_and_arrives_once_when_there_is_room(
    config: Config, small_disk: Path
) -> None:
    closed = Producer(STREAM, config=config, linger_ms=5)
    with Producer(STREAM, config=config, linger_ms=5, compression="none", buffer_bytes_max=2 << 20) as producer:
        receipts: list[Any] = []
        with pytest.raises(BufferFullError):
            receipts.extend(producer.put(order(n, item="x" * 16_000), key="lamp", timeout=3) for n in count())
        while (broker := local.status().problem) is None:
            pass
        assert "kafka is not running" in broker, "a broker whose only disk is full ends"
        with pytest.raises(BrokerUnavailableError, match=r"still on their way.*headrace status"):
            producer.flush(1)
        lost = [closed.put(order(n), key="bulb") for n in range(3)]
        with pytest.raises(BrokerUnavailableError, match="3 records were not acknowledged"):
            closed.close(timeout=1)
        assert all(receipt.done() for receipt in lost)
        with pytest.raises(ClosedError, match="outcome is unknown"):
            lost[0].result()

        subprocess.run(["mount", "-o", f"remount,size={LARGE}", str(small_disk)], check=True)
        local.up()

        receipts.append(producer.put(order(len(receipts)), key="lamp", timeout=60))
        producer.flush(60)
        assert producer.stats.records_acknowledged == len(receipts)
    numbers = [entry["value"]["number"] for entry in read_entries(config, STREAM, 1) if entry["key"] == "lamp"]
    assert list(dict.fromkeys(numbers)) == list(range(len(receipts)))
