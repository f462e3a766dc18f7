"""Run by test_cluster.py in a process of its own: a Spark with s3a, on the warehouse that a cluster has filled."""

from __future__ import annotations

import json
import sys
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from jobs.audit import audit
from jobs.run import run_tables
from jobs.session import spark_session
from jobs.writers import Writer
from pipeline import Producer
from pipeline.config import load_config
from pipeline.errors import HeadraceError


def refusal(call: Callable[[], Any]) -> str:
    try:
        call()
    except HeadraceError as error:
        return f"{type(error).__name__}: {error}"
    return "it went through"


@contextmanager
def overtaken() -> Iterator[None]:
    """Within, another driver takes over each table right after it was taken."""
    take = Writer.take

    def and_another(self: Writer) -> None:
        take(self)
        take(Writer(self._spark, self._table, self._folder.removesuffix("/writers")))

    Writer.take = and_another  # type: ignore[method-assign]
    try:
        yield
    finally:
        Writer.take = take  # type: ignore[method-assign]


def demand_keys(endpoint: str, after: bytes) -> None:
    """Have the server check keys, after so many requests from now."""
    request = urllib.request.Request(f"{endpoint}/moto-api/reset-auth", after, {"Content-Type": "text/plain"})
    urllib.request.urlopen(request).close()


def main(config_file: str, endpoint: str) -> None:
    config = load_config(config_file)
    spark = spark_session("s3", warehouse=config.warehouse, short=True)
    stream = next(iter(config.streams))
    with Producer(stream, config=config) as producer:
        producer.put({"item": "item-0", "number": 90, "note": None}, key="item-0").result(30)
    with overtaken():
        found: dict[str, Any] = {"second driver": refusal(lambda: run_tables(spark, config, None, "available-now"))}
    run_tables(spark, config, None, "available-now")
    found["audits"] = {one.name: one.ok and one.looked_at for one in audit(spark, config, stream)}
    elsewhere = config.model_copy(update={"warehouse": "s3a://no-such-bucket/lake"})
    found["no bucket"] = refusal(lambda: run_tables(spark, elsewhere, None, "available-now"))
    demand_keys(endpoint, after=b"0")
    found["wrong keys"] = refusal(lambda: run_tables(spark, config, None, "available-now"))
    demand_keys(endpoint, after=b"inf")
    spark.stop()
    sys.stdout.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
