"""Schemas that change while producers of every version put and one query runs: what is in the tables is what was put."""

from __future__ import annotations

import contextlib
import copy
import json
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import yaml
from confluent_kafka.schema_registry import SchemaRegistryClient

from jobs.run import run_tables
from pipeline import Consumer, Producer
from pipeline.config import Config, load_config

MakeLake = Callable[..., Any]
PLACE = {"type": "record", "name": "Place", "fields": [{"name": "x", "type": "int"}]}
KIND = {"type": "enum", "name": "Kind", "symbols": ["A"], "default": "A"}
FIRST: dict[str, Any] = {
    "type": "record",
    "name": "Order",
    "namespace": "evolving",
    "fields": [
        {"name": "item", "type": "string"},
        {"name": "number", "type": "int"},
        {"name": "ratio", "type": "float"},
        {"name": "gone", "type": "string", "default": "-"},
        {"name": "title", "type": "string"},
        {"name": "place", "type": PLACE},
        {"name": "kind", "type": KIND},
    ],
}


def field(tree: dict[str, Any], name: str) -> dict[str, Any]:
    found: dict[str, Any] = next(one for one in tree["fields"] if one["name"] == name)
    return found


def add(tree: dict[str, Any]) -> None:
    tree["fields"].append({"name": "note", "type": ["null", "string"], "default": None})


def remove(tree: dict[str, Any]) -> None:
    tree["fields"].remove(field(tree, "gone"))


def widen(tree: dict[str, Any]) -> None:
    field(tree, "number")["type"], field(tree, "ratio")["type"] = "long", "double"


def rename(tree: dict[str, Any]) -> None:
    field(tree, "title").update(name="name", aliases=["title"])


def nested_add(tree: dict[str, Any]) -> None:
    field(tree, "place")["type"]["fields"].append({"name": "y", "type": "int", "default": 7})


def enum_symbol(tree: dict[str, Any]) -> None:
    field(tree, "kind")["type"]["symbols"].append("B")


def reorder(tree: dict[str, Any]) -> None:
    tree["fields"].reverse()


# What is put between two looks at the table: each look costs the time of some micro-batches.
PHASES = (range(1), range(1, 3), range(3, 4))
STEPS = ((add, remove), (widen, rename), (nested_add, enum_symbol, reorder))


def versions() -> list[dict[str, Any]]:
    found = [FIRST]
    for steps in STEPS:
        found.append(copy.deepcopy(found[-1]))
        for step in steps:
            step(found[-1])
    return found


def value(tree: dict[str, Any], item: str) -> dict[str, Any]:
    """A value of a version that uses what the version has."""
    number = sum(map(ord, item))
    wide = field(tree, "number")["type"] == "long"
    place = {"x": number} | ({"y": number + 1} if len(field(tree, "place")["type"]["fields"]) > 1 else {})
    symbols = field(tree, "kind")["type"]["symbols"]
    all_fields = {
        "item": item,
        "number": number + (1 << 40 if wide else 0),
        "ratio": number + (0.1 if wide else 0.5),
        "gone": f"gone-{item}",
        "title": f"name-{item}",
        "name": f"name-{item}",
        "place": place,
        "kind": symbols[number % len(symbols)],
        "note": f"note-{item}",
    }
    return {one["name"]: all_fields[one["name"]] for one in tree["fields"]}


def expected(written: dict[str, Any]) -> dict[str, Any]:
    """The row of a value: what was not written is null; the name of before the rename stands in either column."""
    row = {"note": None, "gone": None} | written
    row["name"] = row.pop("title", row.get("name"))
    return row | {"place": {"y": None} | row["place"]}


def wait_until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + 90
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.1)


def config_of(shop: Any, number: int, tree: dict[str, Any]) -> Config:
    """headrace.yml of a process that has this version of the schema."""
    folder = shop.folder / f"v{number}"
    folder.mkdir()
    (folder / "order.avsc").write_text(json.dumps(tree))
    streams = {shop.stream: {"schema": "order.avsc", "shards": 1, "key": "item"}}
    (folder / "headrace.yml").write_text(yaml.safe_dump({"profile": "embedded", "streams": streams}))
    return load_config(folder / "headrace.yml")


@contextlib.contextmanager
def running(shop: Any) -> Iterator[Any]:
    """Bronze, going on until the end of the block."""
    stop = threading.Event()
    with ThreadPoolExecutor(1) as pool:
        query = pool.submit(run_tables, shop.spark, shop.config, ["bronze.orders"], "100 ms", stop)
        try:
            yield query
        finally:
            stop.set()
        query.result(timeout=60)


def rows(shop: Any, table: str) -> dict[str, dict[str, Any]]:
    """The rows by item, without our own columns, the renamed column as one."""
    found = {}
    for row in shop.read(table).collect():
        plain = {k: v for k, v in row.asDict(recursive=True).items() if not k.startswith("_")}
        before = plain.pop("title", None)
        found[plain["item"]] = plain | {"name": plain.get("name") or before}
    return found


def test_tables_and_consumers_follow_a_schema_through_every_kind_of_change_in_one_running_stream(lake: MakeLake) -> None:
    shop = lake(create=False, shards=1, value=FIRST)
    trees, put, producers = versions(), {}, []
    shop.create()
    shop.run("bronze.orders", "silver.orders")
    configs = [config_of(shop, number, tree) for number, tree in enumerate(trees)]
    with contextlib.ExitStack() as open_ones, running(shop) as query:
        for phase in PHASES:
            for newest in phase:
                opened = Producer(shop.stream, config=configs[newest], linger_ms=10_000)
                producers.append(open_ones.enter_context(opened))
                for together in (("plain",), ("packed", "too")):
                    for number, producer in enumerate(producers):  # the older versions go on
                        for which in together:
                            item = f"{which}-v{number}-while-v{newest}"
                            put[item] = value(trees[number], item)
                            producer.put(put[item], key=item)
                    for producer in producers:
                        producer.flush()
            count = len(put)
            # By the commits: a query of ours that is planned just before a column is widened would be refused by Delta.
            wait_until(lambda: query.done() or shop.totals()["records"] == count, f"bronze stands in {phase}")  # noqa: B023
    shop.run("silver.orders")  # one run, over all that happened
    wanted = {item: expected(written) for item, written in put.items()}
    assert rows(shop, "bronze.orders") == wanted
    assert rows(shop, "silver.orders") == wanted
    assert shop.rejected() == []
    stored = {f.name: f.dataType.simpleString() for f in shop.read().schema.fields}
    assert (stored["number"], stored["ratio"], stored["place"]) == ("bigint", "double", "struct<x:int,y:int>")
    # From the rename on, every version's name is in the new column.
    assert shop.read().where("name IS NULL AND item LIKE '%while-v3'").count() == 0
    _consumers_agree(shop, configs, put)


def _consumers_agree(shop: Any, configs: list[Config], put: dict[str, dict[str, Any]]) -> None:
    """The newest reader gets every version in its own form: defaults, renames by alias, promotions."""
    with Consumer(shop.stream, group="newest", config=configs[-1]) as consumer:
        found: dict[str, Any] = {}
        wait_until(lambda: found.update((r.value["item"], r.value) for r in consumer.read(0.5)) or len(found) == len(put), "read")
    for item, written in put.items():
        wanted = {"note": None} | written
        wanted["name"] = wanted.pop("title", wanted.get("name"))
        wanted["place"] = {"y": 7} | wanted["place"]
        wanted.pop("gone", None)
        assert found[item] == wanted


def test_a_change_that_a_table_cannot_take_goes_to_the_dead_letters_and_the_stream_goes_on(
    lake: MakeLake, stack: Any, caplog: pytest.LogCaptureFixture
) -> None:
    first_tree = FIRST | {"name": "Changing"}
    shop = lake(shards=1, value=first_tree)
    changed = copy.deepcopy(first_tree)
    field(changed, "number")["type"] = "string"
    changed["fields"].append({"name": "more", "type": "int", "default": 0})
    registry = SchemaRegistryClient({"url": stack.registry_url})
    for subject in (f"{shop.stream}-value", "evolving.Changing"):
        registry.set_compatibility(subject, "NONE")
    first, second = (config_of(shop, number, tree) for number, tree in enumerate((first_tree, changed)))
    with Producer(shop.stream, config=first, linger_ms=1) as old, Producer(shop.stream, config=second, linger_ms=1) as new:
        for item in ("a", "b"):
            old.put(value(FIRST, item), key=item)
            new.put(value(FIRST, f"{item}-changed") | {"number": "seven", "more": 1}, key=f"{item}-changed")
            old.flush()
            new.flush()
            shop.run()
    assert sorted(rows(shop, "bronze.orders")) == ["a", "b"]
    rejected = shop.rejected()
    assert [row["reason"] for row in rejected] == ["schema", "schema"]
    assert "number was int and is string now" in rejected[0]["detail"]
    assert rejected[0]["raw"]
    assert "more" not in shop.read().columns
    assert any("go to the dead letters" in record.message for record in caplog.records if record.levelname == "ERROR")
    for subject in (f"{shop.stream}-value", "evolving.Changing"):
        registry.delete_config(subject)
