"""The jobs as on a cluster: spark-submit with the zip of `make pyfiles`, executors in processes of their own, tables on S3."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import boto3
import pyspark
import pytest
from moto.server import ThreadedMotoServer

from jobs import pyfiles
from pipeline.local.jars import ensure
from pipeline.local.java import spark_java_home

MakeLake = Callable[..., Any]
REPOSITORY = Path(__file__).parents[2]
MASTER = "local-cluster[2,1,1024]"  # two executors of one core, each a process
SECRET = "the-secret-key-of-this-test"
QUICK = "-XX:TieredStopAtLevel=1"


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of an S3 server of this process, with a bucket named lake; the environment has it and its keys."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    endpoint = f"http://{host}:{port}"
    keys = {"AWS_ACCESS_KEY_ID": "headrace", "AWS_SECRET_ACCESS_KEY": SECRET, "AWS_REGION": "us-east-1"}
    for name, value in (keys | {"AWS_ENDPOINT_URL_S3": endpoint}).items():
        monkeypatch.setenv(name, value)
    boto3.client("s3", endpoint_url=endpoint, region_name="us-east-1").create_bucket(Bucket="lake")
    try:
        yield endpoint
    finally:
        server.stop()


@pytest.fixture(scope="module")
def shipped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as one has it on a cluster: the zip, a job's file, and a module with the user's function."""
    folder = tmp_path_factory.mktemp("shipped")
    pyfiles.build(folder / "headrace.zip")
    shutil.copy(REPOSITORY / "jobs" / "run.py", folder)
    shutil.copy(REPOSITORY / "tests" / "spark" / "functions.py", folder / "visits.py")
    return folder


def submit(shipped: Path, config: Path) -> tuple[subprocess.CompletedProcess[str], set[str]]:
    """Run all tables on the cluster; also the executors that tasks ran on, as Spark's own log tells."""
    spark_home, events = Path(pyspark.__file__).parent, shipped / "events"
    events.mkdir()
    settings = {
        "spark.ui.enabled": "false", "spark.driver.host": "127.0.0.1", "spark.driver.memory": "1g",
        "spark.driver.extraJavaOptions": QUICK, "spark.executor.extraJavaOptions": QUICK, "spark.sql.shuffle.partitions": "2",
        "spark.eventLog.enabled": "true", "spark.eventLog.dir": events.as_uri(), "spark.eventLog.rolling.enabled": "false",
        "spark.eventLog.compress": "false",
    }  # fmt: skip
    command = [str(spark_home / "bin" / "spark-submit"), "--master", MASTER]
    command += ["--py-files", f"{shipped / 'headrace.zip'},{shipped / 'visits.py'}"]
    command += ["--jars", ",".join(str(jar) for group in ("spark", "s3") for jar in ensure(group))]
    for key, value in settings.items():
        command += ["--conf", f"{key}={value}"]
    command += [str(shipped / "run.py"), "--config", str(config), "--mode", "available-now"]
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"} | {
        "JAVA_HOME": str(spark_java_home()), "SPARK_HOME": str(spark_home), "SPARK_WORKER_DIR": str(shipped / "work"),
        "PYSPARK_PYTHON": sys.executable, "PYSPARK_DRIVER_PYTHON": sys.executable,
    }  # fmt: skip
    done = subprocess.run(command, env=environment, cwd=shipped, text=True, capture_output=True, timeout=500)
    assert done.returncode == 0, done.stderr[-6000:]
    told = [json.loads(line) for file in events.iterdir() for line in file.read_text().splitlines()]
    return done, {event["Task Info"]["Executor ID"] for event in told if event["Event"] == "SparkListenerTaskEnd"}


def copied(endpoint: str, folder: Path) -> None:
    """The bucket as a folder, fetched without Spark: a Delta table's paths are relative."""
    client = boto3.client("s3", endpoint_url=endpoint, region_name="us-east-1")
    for page in client.get_paginator("list_objects_v2").paginate(Bucket="lake"):
        for entry in page.get("Contents", []):
            if not entry["Key"].endswith("/"):
                (folder / entry["Key"]).parent.mkdir(parents=True, exist_ok=True)
                client.download_file("lake", entry["Key"], str(folder / entry["Key"]))


def on_s3(shop: Any) -> Path:
    """The lake's headrace.yml with its warehouse in the bucket."""
    assert shop.config  # writes it
    file: Path = shop.folder / "headrace.yml"
    file.write_text(file.read_text().replace("warehouse: lake", "warehouse: s3a://lake/house"))
    return file


@pytest.mark.timeout(900)
def test_tables_on_s3_are_written_by_several_executors_then_by_a_local_spark_and_hold_what_was_put(
    lake: MakeLake, shipped: Path, s3: str, tmp_path: Path
) -> None:
    ordered = {"state": "count int, last int", "output": "item string, number int, count int, before int"}
    shop = lake(
        shards=4,
        tables={
            "silver.seen": {"from": "bronze.orders", "ordered": ordered | {"function": "visits:seen"}},
            "gold.count": {"from": "silver.orders", "sql": "count.sql", "mode": "refresh"},
        },
    )
    (shop.folder / "count.sql").write_text("SELECT count(*) AS n, sum(number) AS total FROM silver.orders")
    shop.put(*((f"item-{n % 10}", n) for n in range(60)))
    done, executors = submit(shipped, on_s3(shop))
    assert executors == {"0", "1"}

    shop.put(*((f"item-{n % 10}", n) for n in range(60, 90)))
    script = [sys.executable, str(REPOSITORY / "tests" / "spark" / "s3_script.py"), str(on_s3(shop)), s3]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join((str(REPOSITORY), str(shipped)))}
    local = subprocess.run(script, env=environment, text=True, capture_output=True, timeout=400)
    assert local.returncode == 0, local.stderr[-3000:]
    told = json.loads(local.stdout)
    assert told["second driver"].startswith("TableError: bronze.orders: another driver has started to write this table")
    assert told["audits"]["bronze.orders"]["rows"] == 91
    assert told["audits"]["silver.orders"]["keys"] == 10
    assert told["no bucket"].startswith("TableError: s3a://no-such-bucket: there is no such bucket")
    assert told["wrong keys"].startswith("TableError: s3a://lake: the access key is not known there")
    assert SECRET not in done.stderr + done.stdout + local.stderr + local.stdout

    copied(s3, tmp_path / "fetched")

    def fetched(table: str) -> Any:
        return shop.spark.read.format("delta").load(str(tmp_path / "fetched" / "house" / table))

    rows = fetched("bronze/orders").select("item", "number").collect()
    assert sorted((row["number"], row["item"]) for row in rows) == [(n, f"item-{n % 10}") for n in range(91)]
    assert {row["item"]: row["number"] for row in fetched("silver/orders").collect()} == {
        f"item-{n % 10}": n for n in range(81, 91)
    }
    seen = sorted((row["item"], row["count"], row["number"]) for row in fetched("silver/seen").collect())
    assert seen == sorted((f"item-{n % 10}", n // 10 + 1, n) for n in range(91))
    assert [tuple(row) for row in fetched("gold/count").collect()] == [(10, sum(range(81, 91)))]
