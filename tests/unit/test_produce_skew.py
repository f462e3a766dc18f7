"""Skew figures: what scrapes are told of a producer's keys and shards."""

from __future__ import annotations

from pipeline import metrics
from pipeline.produce.aggregate import Aggregate
from pipeline.produce.skew import Skew
from pipeline.schema.encode import EntryEncoder
from pipeline.schema.value_schema import parse_schema

SCHEMA = parse_schema({"type": "record", "name": "R", "fields": [{"name": "n", "type": "int"}]})
ENCODE = EntryEncoder(SCHEMA).encode


def aggregate(shard: str, keys: list[str]) -> Aggregate:
    made = Aggregate(shard, 0)
    for seq, key in enumerate(keys):
        made.append(seq, None, ENCODE(key, None, 0, 5, None, {"n": 1}))
    return made


def gauges(skew: Skew) -> dict[tuple[str, ...], float]:
    return {(definition.name, *labels[1:]): value for definition, labels, value in skew.read_gauges()}


def test_nothing_is_told_before_something_was_sent() -> None:
    assert Skew("s").read_gauges() == []


def test_the_shares_of_keys_and_shards_are_told() -> None:
    skew = Skew("s")
    skew.add(aggregate("s0", ["hot"] * 20 + [f"k{n}" for n in range(10)]))
    skew.add(aggregate("s1", [f"c{n}" for n in range(10)]))
    told = gauges(skew)
    assert told[(metrics.TOP_KEYS_SHARE.name, "1")] == 0.5
    assert told[(metrics.TOP_KEYS_SHARE.name, "10")] == 29 / 40
    assert told[(metrics.SHARD_GINI.name,)] == 0.25
    assert skew.top(1)[0].key == "hot"


def test_a_few_records_stand_for_a_large_aggregate() -> None:
    skew = Skew("s")
    skew.add(aggregate("s0", ["a", "b"] * 5_000))
    assert skew.total == 10_000
    assert len(skew.top(9)) <= 2
    assert sum(heavy.count for heavy in skew.top(2)) == 10_000
