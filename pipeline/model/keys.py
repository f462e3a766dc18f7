"""Hash keys: where a partition key stands in the space that shards divide.

The hash is XXH64 with seed 42 over the key's UTF-8 bytes, taken as an unsigned 64-bit number: exactly Spark SQL's
``xxhash64(key)``, so that shards, skew and repeats can be checked in SQL (DESIGN.md §4).
"""

from __future__ import annotations

from itertools import pairwise

from xxhash import xxh64_intdigest

HASH_NAME = "xxh64-42"
HASH_SPACE = 1 << 64


def hash_key(partition_key: str) -> int:
    """Hash key of a partition key, in ``[0, HASH_SPACE)``. Raises UnicodeEncodeError on lone surrogates."""
    return xxh64_intdigest(partition_key.encode(), 42)


def salted_key(partition_key: str, salt: int) -> str:
    """What is hashed for a record: the key itself when it is not salted (salt 0), else ``key#salt``."""
    return f"{partition_key}#{salt}" if salt else partition_key


def even_ranges(count: int) -> list[tuple[int, int]]:
    """Divide the hash space into ``count`` half-open ranges, equal to within one."""
    if not 1 <= count <= HASH_SPACE:
        raise ValueError(f"a stream has at least one shard, not {count}")
    bounds = [HASH_SPACE * i // count for i in range(count + 1)]
    return list(pairwise(bounds))
