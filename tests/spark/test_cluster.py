"""The jobs on a cluster: spark-submit with the zip of `make pyfiles`, executors as processes of their own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyspark
import pytest

from jobs import pyfiles
from pipeline.local.jars import ensure
from pipeline.local.java import spark_java_home

MakeLake = Callable[..., Any]
REPOSITORY = Path(__file__).parents[2]
MASTER = "local-cluster[2,1,1024]"  # two executor processes of one core each


@pytest.fixture(scope="module")
def shipped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as one has it on a cluster: the zip and the jobs' own files, nothing else of the repository."""
    folder = tmp_path_factory.mktemp("shipped")
    pyfiles.build(folder / "headrace.zip")
    shutil.copy(REPOSITORY / "jobs" / "run.py", folder / "run.py")
    return folder


def submit(shipped: Path, shop: Any, *arguments: str, conf: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    spark_home = Path(pyspark.__file__).parent
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"} | {
        "JAVA_HOME": str(spark_java_home()), "SPARK_HOME": str(spark_home),
        "PYSPARK_PYTHON": sys.executable, "PYSPARK_DRIVER_PYTHON": sys.executable,
    }  # fmt: skip
    settings = {"spark.ui.enabled": "false", "spark.driver.memory": "1g", "spark.driver.host": "127.0.0.1"} | (conf or {})
    command = [str(spark_home / "bin" / "spark-submit"), "--master", MASTER, "--py-files", str(shipped / "headrace.zip")]
    command += ["--jars", ",".join(str(jar) for jar in ensure("spark"))]
    for key, value in settings.items():
        command += ["--conf", f"{key}={value}"]
    command += [str(shipped / "run.py"), "--config", str(shop.folder / "headrace.yml"), "--mode", "available-now", *arguments]
    return subprocess.run(command, env=environment, cwd=shipped, text=True, capture_output=True, timeout=240)


def test_bronze_and_silver_are_written_by_several_executor_processes(lake: MakeLake, shipped: Path, tmp_path: Path) -> None:
    shop = lake(shards=4)
    assert shop.config
    shop.put(*((f"item-{n % 20}", n) for n in range(200)))
    (tmp_path / "events").mkdir()
    events = {"spark.eventLog.enabled": "true", "spark.eventLog.dir": (tmp_path / "events").as_uri()}
    done = submit(shipped, shop, "--json", conf=events | {"spark.eventLog.rolling.enabled": "false"})
    assert done.returncode == 0, done.stderr[-3000:]
    assert shop.numbers() == list(range(200))
