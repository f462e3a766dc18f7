"""`headrace audit`: content with what is right, and telling where, when a table is tampered with."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pyspark.sql import functions as F

from jobs import tables
from jobs.audit import audit
from pipeline import reshard
from pipeline.errors import ConfigError, TableError
from pipeline.model.stamp import Stamp, encode_stamp

MakeLake = Callable[..., Any]
REPOSITORY = Path(__file__).parents[2]


def problems(shop: Any, name: str) -> dict[str, tuple[int, str]]:
    """What the audit of a table found: problem → (how often, the first example)."""
    (result,) = audit(shop.spark, shop.config, name)
    return {finding.problem: (finding.count, "".join(finding.examples[:1])) for finding in result.findings}


def change(shop: Any, table: str, statement: str) -> None:
    shop.spark.sql(statement.format(f"delta.`{tables.table_path(shop.config, table)}`"))


def order(number: int, item: str = "apple") -> dict[str, Any]:
    return {"item": item, "number": number, "note": None}


@pytest.fixture(scope="module")
def full_shop(new_lake: MakeLake, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Tables with everything that an audit has to understand: repeats whole and in part, a void, an END, a split, a rejected
    message, a tombstone, several rows of a key."""
    made = new_lake(tmp_path_factory.mktemp("audit"), shards=1)
    made.put(("apple", 1), ("pear", 2), ("apple", 3))
    made.send([(0, "apple", order(10)), (1, "apple", order(11))], producer="p")
    made.send([(0, "apple", order(10)), (1, "apple", order(11))], producer="p")
    made.send([(1, "apple", order(11)), (2, "apple", order(12))], producer="p")
    made.send([(3, "apple", order(13))], producer="p", value=b"\x00rubbish")
    reshard.split(made.stream, "s0", config=made.config)
    made.send([(4, "apple", order(99))], producer="p", shard="s0")
    made.put(("apple", 4), ("plum", 5))
    made.send([(7, "plum", None)], producer="q")
    made.run("bronze.orders", "silver.orders")
    return made


@pytest.fixture
def shop(full_shop: Any) -> Iterator[Any]:
    """The same for a test that tampers with the tables: they are restored."""
    before = {table: full_shop.version(table) for table in ("bronze.orders", "silver.orders")}
    yield full_shop
    for table, version in before.items():
        if full_shop.version(table) != version:
            change(full_shop, table, f"RESTORE TABLE {{}} TO VERSION AS OF {version}")


def test_an_audit_is_content_when_repeats_voids_rejects_and_reshards_were_handled_right(shop: Any) -> None:
    bronze, silver = audit(shop.spark, shop.config, shop.stream)
    assert (bronze.findings, silver.findings) == ([], [])
    assert bronze.looked_at["messages left out, whole or in part, as repeats"] == 2
    assert bronze.looked_at["rows"] == 9
    assert silver.looked_at["keys"] == 3


def test_a_lost_row_is_found_by_its_offset_when_it_is_gone_from_bronze(shop: Any) -> None:
    change(shop, "bronze.orders", "DELETE FROM {} WHERE number = 12")
    found = problems(shop, "bronze.orders")
    assert found.pop("rows in the table, where its commits count 9")[0] == 8
    count, example = found.pop("records that are in the log and not in the table")
    assert not found
    assert count == 1
    assert example.endswith("producer p, seq 2")


def test_a_row_that_is_there_twice_is_found(shop: Any) -> None:
    path = tables.table_path(shop.config, "bronze.orders")
    rows = shop.spark.read.format("delta").load(path).where("number = 5").localCheckpoint()
    rows.write.format("delta").mode("append").save(path)
    found = problems(shop, "bronze.orders")
    assert found["messages that are in the table more than once"][0] == 1
    assert found["records that are in the table more than once (producer, sequence)"][0] == 1


def test_a_void_record_and_one_of_nowhere_are_found_when_they_are_in_the_table(shop: Any) -> None:
    path = tables.table_path(shop.config, "bronze.orders")
    seal = shop.shard_map().shards["s0"].seal
    rows = shop.spark.read.format("delta").load(path).where("number = 5").localCheckpoint()
    for offset in (seal, 1_000):
        meta = rows["_meta"].withField("order.offset", F.lit(offset).cast("long")).withField("partition", F.lit(0))
        rows.withColumn("_meta", meta).write.format("delta").mode("append").save(path)
    found = problems(shop, "bronze.orders")
    assert found["void messages or END markers in the table"][0] == 1
    assert found["messages in the table that the topic does not hold"] == (1, f"topic {shop.stream}, partition 0, offset 1000")


def test_a_hole_in_a_producers_chain_is_found(lake: MakeLake) -> None:
    made = lake(shards=1)
    stamps = [Stamp("s0", "p", 1, seq, seq, previous, 1, 1) for seq, previous in ((0, -1), (4, 0), (9, 7))]
    for stamp in stamps:
        made.send([(stamp.first_seq, "apple", order(stamp.first_seq))], stamp=encode_stamp(stamp))
    made.run("bronze.orders")
    found = problems(made, "bronze.orders")
    what = "messages whose predecessor in its producer's chain is not in the log"
    assert found == {what: (1, f"topic {made.stream}, partition 0, offset 2, producer p, previous_seq 7")}


def test_a_silver_row_that_is_not_the_newest_or_missing_or_too_many_is_found(shop: Any) -> None:
    change(shop, "silver.orders", "UPDATE {} SET number = 3 WHERE item = 'apple'")
    change(shop, "silver.orders", "DELETE FROM {} WHERE item = 'pear'")
    change(shop, "silver.orders", "UPDATE {} SET _deleted = false WHERE item = 'plum'")
    assert problems(shop, "silver.orders") == {
        "keys whose row is not the newest record's": (1, "item apple"),
        "keys of bronze that are not in the table": (1, "item pear"),
        "keys that are deleted on one side only": (1, "item plum"),
    }


def test_what_cannot_be_audited_is_a_sentence(lake: MakeLake) -> None:
    made = lake(tables={"gold.count": {"from": "silver.orders", "sql": "count.sql", "mode": "refresh"}})
    for name, error, sentence in (
        ("nothing", ConfigError, "no stream or table"),
        ("gold.count", ConfigError, "audit those"),
        ("bronze.orders", TableError, "run `headrace run bronze.orders` first"),
    ):
        with pytest.raises(error, match=sentence):
            audit(made.spark, made.config, name)


def test_the_command_ends_with_code_1_and_says_where_when_something_is_wrong(shop: Any) -> None:
    change(shop, "silver.orders", "UPDATE {} SET number = 3 WHERE item = 'apple'")
    command = [sys.executable, "-m", "jobs.audit", "silver.orders", "--config", str(shop.folder / "headrace.yml"), "--json"]
    done = subprocess.run(
        command, env=os.environ | {"PYTHONPATH": str(REPOSITORY)}, text=True, capture_output=True, timeout=200, check=False
    )
    assert done.returncode == 1, done.stderr
    (result,) = json.loads(done.stdout)["audits"]
    assert [finding["examples"] for finding in result["findings"]] == [["item apple"]]
