"""Hash keys: where a partition key stands in the space that shards divide.

The hash is XXH64 with seed 42 over the key's UTF-8 bytes, taken as an unsigned 64-bit number: exactly Spark SQL's
``xxhash64(key)``, so that shards, skew and repeats can be checked in SQL (DESIGN.md §4).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from xxhash import xxh64_intdigest

HASH_NAME = "xxh64-42"
HASH_SPACE = 1 << 64
HASH_HEADER = "headrace-hash"  # of a record, not of a message: eight bytes, big endian
HASH_BYTES = 8
Headers = Sequence[tuple[str, bytes | None]]


def hash_key(partition_key: str) -> int:
    """Hash key of a partition key, in ``[0, HASH_SPACE)``. Raises UnicodeEncodeError on lone surrogates."""
    return xxh64_intdigest(partition_key.encode(), 42)


def salted_key(partition_key: str, salt: int) -> str:
    """What is hashed for a record: the key itself when it is not salted (salt 0), else ``key#salt``."""
    return f"{partition_key}#{salt}" if salt else partition_key


def with_hash(headers: Headers | None, hashed: int) -> Headers:
    """A record's headers with the hash key that its caller gave: nobody could compute it from the key again."""
    return [*(headers or ()), (HASH_HEADER, hashed.to_bytes(HASH_BYTES, "big"))]


def record_hash(partition_key: str, salt: int, headers: Headers | None) -> int:
    """The hash key that a record was routed by: the one in its headers, else that of its key and salt."""
    for name, value in headers or ():
        if name == HASH_HEADER and value is not None and len(value) == HASH_BYTES:
            return int.from_bytes(value, "big")
    return hash_key(salted_key(partition_key, salt))


def even_ranges(count: int) -> list[tuple[int, int]]:
    """Divide the hash space into ``count`` half-open ranges, equal to within one."""
    if not 1 <= count <= HASH_SPACE:
        raise ValueError(f"a stream has at least one shard, not {count}")
    bounds = [HASH_SPACE * i // count for i in range(count + 1)]
    return list(pairwise(bounds))
