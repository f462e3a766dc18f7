"""Hash keys."""

from __future__ import annotations

import pytest
from xxhash import xxh64

from pipeline.model.keys import HASH_SPACE, even_ranges, hash_key, salted_key


def test_the_hash_is_xxh64_with_seed_42_of_utf8() -> None:
    # Spark SQL: SELECT xxhash64('N14228'), xxhash64(''), xxhash64('Ü') as unsigned numbers; the seed of Spark is 42.
    assert hash_key("N14228") == xxh64(b"N14228", seed=42).intdigest()
    assert hash_key("") == 0x98B1582B0977E704
    assert hash_key("Ü") == xxh64(b"\xc3\x9c", seed=42).intdigest()


def test_hash_keys_fill_the_space_up_to_its_end() -> None:
    hashes = [hash_key(str(number)) for number in range(2000)]
    assert min(hashes) < HASH_SPACE // 100
    assert HASH_SPACE - HASH_SPACE // 100 < max(hashes) < HASH_SPACE


def test_a_lone_surrogate_has_no_hash() -> None:
    with pytest.raises(UnicodeEncodeError):
        hash_key("\ud800")


def test_an_unsalted_key_is_hashed_as_it_is() -> None:
    assert salted_key("k", 0) == "k"
    assert salted_key("k", 3) == "k#3"


@pytest.mark.parametrize("count", [1, 2, 3, 7, 500])
def test_even_ranges_cover_the_space_and_differ_by_one(count: int) -> None:
    ranges = even_ranges(count)
    assert [low for low, _ in ranges] == [0, *(high for _, high in ranges[:-1])]
    assert ranges[-1][1] == HASH_SPACE
    assert len({high - low for low, high in ranges}) <= 2


@pytest.mark.parametrize("count", [0, -1, HASH_SPACE + 1])
def test_an_impossible_number_of_ranges_is_refused(count: int) -> None:
    with pytest.raises(ValueError, match="at least one shard"):
        even_ranges(count)
