"""Reading back what stands first in an encoded entry: its partition key and salt, for the few records that have to be routed
again. So the producer need not keep them for all the others."""

from __future__ import annotations

from pipeline.model.keys import hash_key, salted_key
from pipeline.schema.varint import INTS, unzigzag


def entry_key(body: bytes) -> str:
    """The partition key of an entry that EntryEncoder wrote."""
    size, at = _read_long(body, 0)
    return body[at : at + size].decode()


def salted_entry(body: bytes, salt: int) -> bytes:
    """The same entry, of salt 0 until now, with this salt."""
    at = _salt_at(body)[1]
    return body[:at] + INTS[salt] + body[at + 1 :]


def entry_hash_key(body: bytes) -> int:
    """The hash key by which an entry that EntryEncoder wrote is routed: of its key, and its salt where it has one."""
    key, at = _salt_at(body)
    salt, _ = _read_long(body, at)
    return hash_key(salted_key(key, salt))


def _salt_at(body: bytes) -> tuple[str, int]:
    """The key, and where the salt stands."""
    size, at = _read_long(body, 0)
    key = body[at : at + size].decode()
    branch, at = _read_long(body, at + size)
    if branch:  # an explicit dedup id stands between
        size, at = _read_long(body, at)
        at += size
    return key, at


def _read_long(body: bytes, at: int) -> tuple[int, int]:
    end = at
    while body[end] >= 0x80:
        end += 1
    return unzigzag(body[at : end + 1]), end + 1
