"""When a hot key is salted, how far, and that it does not flap."""

from __future__ import annotations

from typing import Any

import pytest

from pipeline.model.keys import HASH_NAME, even_ranges, hash_key, salted_key
from pipeline.model.salting import FALL_AFTER, RISE_AFTER, Salted, SaltPolicy, salt_of, salts_for
from pipeline.model.shards import CREATED, SALT, SALTED_KEYS_MAX, Shard, ShardMap, shard_event
from pipeline.schema.encode import EntryEncoder
from pipeline.schema.entry import entry_hash_key, entry_key, salted_entry
from pipeline.schema.value_schema import parse_schema

ENCODE = EntryEncoder(parse_schema({"type": "record", "name": "R", "fields": [{"name": "n", "type": "int"}]})).encode


def created(ordering: str = "salted") -> ShardMap:
    shards = [Shard(f"s{index}", low, high, "t", index) for index, (low, high) in enumerate(even_ranges(2))]
    event = {"type": CREATED, "shards": [shard_event(s) for s in shards], "hash": HASH_NAME, "subject": "s"}
    return ShardMap().apply(event | {"ordering": ordering}, 0)


def salt(key: Any = "hot", count: Any = 4, producer: Any = "p") -> dict[str, Any]:
    return {"type": SALT, "key": key, "count": count, "producer": producer}


@pytest.mark.parametrize(("load", "count"), [(0.1, 1), (0.5, 1), (0.6, 2), (1.0, 2), (1.1, 4), (4.0, 8), (1e9, 64)])
def test_a_key_gets_as_many_salts_as_keep_each_at_half_a_shard(load: float, count: int) -> None:
    assert salts_for(load) == count


def test_a_salt_depends_on_the_dedup_id_alone_and_uses_all_salts() -> None:
    assert {salt_of(f"p-{seq}", 8) for seq in range(200)} == set(range(1, 9))
    assert salt_of("p-7", 8) == salt_of("p-7", 8)
    assert salt_of("p-7", 1) == 0


def test_a_count_rises_after_some_looks_in_a_row() -> None:
    policy = SaltPolicy("p")
    looks = [policy.look({"hot": 900.0}, 1_000.0, 4, {}) for _ in range(RISE_AFTER)]
    assert looks == [[]] * (RISE_AFTER - 1) + [[("hot", 8)]]
    policy = SaltPolicy("p")
    for weight in (900.0, 10.0, 900.0):
        assert policy.look({"hot": weight}, 1_000.0, 4, {}) == [], "a look that asks for none begins anew"


def test_a_count_falls_late_and_only_by_who_set_it() -> None:
    salted = {"hot": Salted(8, "p")}
    mine, other = SaltPolicy("p"), SaltPolicy("q")
    looks = [mine.look({"hot": 200.0}, 1_000.0, 4, salted) for _ in range(FALL_AFTER)]
    assert looks == [[]] * (FALL_AFTER - 1) + [[("hot", 2)]]
    assert not any(other.look({"hot": 1.0}, 1_000.0, 4, salted) for _ in range(3 * FALL_AFTER))
    kept = [mine.look({"hot": 600.0}, 1_000.0, 4, salted) for _ in range(3 * FALL_AFTER)]
    assert not any(kept), "half of what it has is no reason"


def test_few_records_and_a_lone_shard_say_nothing() -> None:
    policy = SaltPolicy("p")
    assert not any(policy.look({"hot": 900.0}, 999.0, 4, {}) for _ in range(9))
    assert not any(policy.look({"hot": 900.0}, 1_000.0, 1, {}) for _ in range(9))


def test_the_log_agrees_on_the_count_of_a_key() -> None:
    shard_map = created().apply(salt(), 1).apply(salt("other", 2, "q"), 2)
    assert shard_map.salts == {"hot": Salted(4, "p"), "other": Salted(2, "q")}
    assert shard_map.apply(salt(count=1), 3).salts == {"other": Salted(2, "q")}
    assert shard_map.apply(salt(count=8, producer="q"), 3).salts["hot"] == Salted(8, "q")


IGNORED = [salt(count=2, producer="q"), salt(count=0), salt(count=65), salt(count=True), salt(count="2"), salt(key=3)]


@pytest.mark.parametrize("event", [*IGNORED, salt("k" * 1_001)])
def test_an_event_that_may_not_be_is_ignored(event: dict[str, Any]) -> None:
    shard_map = created().apply(salt(), 1)
    after = shard_map.apply(event, 2)
    assert (after.salts, after.ignored) == (shard_map.salts, 1)


def test_strict_streams_are_never_salted_and_keys_are_bounded() -> None:
    assert created("strict").apply(salt(), 1).salts == {}
    shard_map = created()
    for n in range(SALTED_KEYS_MAX + 1):
        shard_map = shard_map.apply(salt(f"k{n}"), n + 1)
    assert (len(shard_map.salts), shard_map.ignored) == (SALTED_KEYS_MAX, 1)


@pytest.mark.parametrize("dedup_id", [None, "x" * 300])
def test_an_entry_takes_its_salt_and_is_routed_by_it(dedup_id: str | None) -> None:
    plain = ENCODE("kéy", dedup_id, 0, 5, None, {"n": 1})
    assert salted_entry(plain, 9) == ENCODE("kéy", dedup_id, 9, 5, None, {"n": 1})
    assert entry_key(salted_entry(plain, 9)) == "kéy"
    assert entry_hash_key(plain) == hash_key("kéy")
    assert entry_hash_key(salted_entry(plain, 9)) == hash_key(salted_key("kéy", 9))
