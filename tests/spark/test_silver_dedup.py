"""Explicit dedup ids in silver tables: `dedup: exact` and `dedup: window 1h`."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from pyspark.sql import SparkSession

import jobs.merging.ids
import jobs.silver
from jobs import decode, tables
from jobs.audit import audit
from jobs.run import run_tables
from pipeline.config import Config, load_config
from pipeline.errors import InvariantError, TableError
from pipeline.model.shards import ShardMap

START = datetime(2026, 1, 1, tzinfo=UTC)
SCHEMA = {
    "type": "record",
    "name": "Order",
    "fields": [{"name": "item", "type": "string"}, {"name": "number", "type": "int"}],
}
Arrival = tuple[str | None, str, int, int]
"""Id, key, minutes since the start, number."""


@pytest.fixture(scope="module")
def config(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> Config:
    folder: Path = tmp_path_factory.mktemp("dedup")
    (folder / "order.avsc").write_text(json.dumps(SCHEMA))
    dedup = {"exact": "exact", "window": "window 1h"}
    text: dict[str, Any] = {
        "profile": "none",
        "profiles": {"none": {"bootstrap": "localhost:1", "registry": "http://localhost:1"}},
        "warehouse": "lake",
        "streams": {name: {"schema": "order.avsc", "key": "item", "dedup": kind} for name, kind in dedup.items()},
        "tables": {f"bronze.{name}": {"from": name} for name in dedup}
        | {f"silver.{name}": {"from": f"bronze.{name}", "merge": {"keys": ["item"]}} for name in dedup},
    }
    (folder / "headrace.yml").write_text(yaml.safe_dump(text))
    made = load_config(folder / "headrace.yml")
    for name in dedup:
        schema = decode.empty(spark, SCHEMA, ShardMap()).schema
        tables.create(spark, made, made.table(f"bronze.{name}"), name, schema)
    return made


def arrive(spark: SparkSession, config: Config, offset: int, *arrivals: Arrival) -> None:
    """Append to both bronze tables, in one commit each, from an offset on."""
    for name in ("exact", "window"):
        path = tables.table_path(config, f"bronze.{name}")
        schema = spark.read.format("delta").load(path).schema
        rows = []
        for n, (given, key, minutes, number) in enumerate(arrivals):
            at = START + timedelta(minutes=minutes)
            order = {"generation": 0, "offset": offset + n, "index": 0}
            meta = {"key": key, "id": given, "order": order, "topic": name, "partition": 0, "timestamp": at, "ingested_at": at}
            rows.append({"item": key, "number": number, "_meta": meta, "_rejected": None, "_deleted": False})
        spark.createDataFrame(rows, schema).write.format("delta").mode("append").save(path)


def held(spark: SparkSession, config: Config, name: str) -> dict[str, int]:
    return {row["item"]: row["number"] for row in tables.read(spark, config, f"silver.{name}").collect()}


def sights(spark: SparkSession, config: Config, name: str) -> list[tuple[str, str, int]]:
    rows = spark.read.format("delta").load(f"{config.warehouse}/_ids/silver/{name}").collect()
    return sorted((row["id"], row["key"], row["record"]["offset"]) for row in rows)


def test_the_first_record_of_an_id_counts_for_ever_or_for_its_window_also_after_a_crash(
    spark: SparkSession, config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs.merging.ids, "_EXPIRED_EVERY", 1)
    silver = ["silver.exact", "silver.window"]
    arrive(spark, config, 0, ("a", "x", 0, 1), ("b", "x", 10, 2), ("a", "x", 20, 3), (None, "y", 20, 4))
    told = run_tables(spark, config, silver, "available-now")
    assert [told[name].repeats for name in silver] == [1, 1]
    arrive(spark, config, 4, ("a", "x", 50, 5), ("a", "z", 50, 6), (None, "y", 50, 7))
    run_tables(spark, config, silver, "available-now")
    assert held(spark, config, "exact") == held(spark, config, "window") == {"x": 2, "y": 7, "z": 6}
    arrive(spark, config, 7, ("a", "x", 70, 8), ("a", "x", 75, 9), ("c", "w", 75, 10))
    with monkeypatch.context() as patch:

        def die(*_: Any, **__: Any) -> None:
            raise InvariantError("killed by the test between the ids and the rows")

        patch.setattr(jobs.silver, "merge", die)
        for name in silver:
            with pytest.raises(InvariantError):
                run_tables(spark, config, [name], "available-now")
    run_tables(spark, config, silver, "available-now")
    assert held(spark, config, "exact") == {"x": 2, "y": 7, "z": 6, "w": 10}
    assert held(spark, config, "window") == {"x": 8, "y": 7, "z": 6, "w": 10}  # an hour after the first sight
    assert sights(spark, config, "exact") == [("a", "x", 0), ("a", "z", 5), ("b", "x", 1), ("c", "w", 9)]
    # The first sight of all is over, and gone.
    assert sights(spark, config, "window") == [("a", "x", 7), ("a", "z", 5), ("b", "x", 1), ("c", "w", 9)]
    for name in silver:
        (audited,) = audit(spark, config, name)
        assert audited.findings == []
    path = Path(f"{config.warehouse}/_ids/silver/exact")
    path.rename(path.with_name("elsewhere"))
    with pytest.raises(TableError, match=r"the ids that silver\.exact has seen are gone"):
        run_tables(spark, config, ["silver.exact"], "available-now")
