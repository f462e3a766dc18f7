"""Reading back what stands first in an encoded entry: its partition key and salt, for the few records that have to be routed
again. So the producer need not keep them for all the others."""

from __future__ import annotations

from pipeline.model.keys import hash_key, salted_key
from pipeline.schema.varint import unzigzag


def entry_key(body: bytes) -> str:
    """The partition key of an entry that EntryEncoder wrote."""
    size, at = _read_long(body, 0)
    return body[at : at + size].decode()


def entry_hash_key(body: bytes) -> int:
    """The hash key by which an entry that EntryEncoder wrote is routed: of its key, and its salt where it has one."""
    size, at = _read_long(body, 0)
    key = body[at : at + size].decode()
    branch, at = _read_long(body, at + size)
    if branch:  # an explicit dedup id stands between
        size, at = _read_long(body, at)
        at += size
    salt, _ = _read_long(body, at)
    return hash_key(salted_key(key, salt))


def _read_long(body: bytes, at: int) -> tuple[int, int]:
    end = at
    while body[end] >= 0x80:
        end += 1
    return unzigzag(body[at : end + 1]), end + 1
