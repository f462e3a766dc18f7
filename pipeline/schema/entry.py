"""Reading back an encoded entry: its partition key and salt, for the few records that have to be routed again (so the producer
need not keep them for all the others), and the whole of it where it becomes a message of its own."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.model.keys import hash_key, salted_key
from pipeline.model.stamp import STAMP_HEADER
from pipeline.schema.varint import INTS, unzigzag


def entry_key(body: bytes) -> str:
    """The partition key of an entry that EntryEncoder wrote."""
    return entry_key_bytes(body).decode()


def salted_entry(body: bytes, salt: int) -> bytes:
    """The same entry, of salt 0 until now, with this salt."""
    at = _salt_at(body)[1]
    return body[:at] + INTS[salt] + body[at + 1 :]


def entry_hash_key(body: bytes) -> int:
    """The hash key by which an entry that EntryEncoder wrote is routed: of its key, and its salt where it has one."""
    key, at = _salt_at(body)
    salt, _ = _read_long(body, at)
    return hash_key(salted_key(key, salt))


@dataclass(frozen=True, slots=True)
class PlainRecord:
    """An entry's record as a message of its own has it: ``value`` is in Avro, without a frame; None for a tombstone."""

    key: bytes
    timestamp_ms: int
    headers: list[tuple[str, bytes | None]]
    value: bytes | None


def entry_key_bytes(body: bytes) -> bytes:
    """The partition key of an entry that EntryEncoder wrote, in UTF-8."""
    size, at = _read_long(body, 0)
    return body[at : at + size]


def plain_record(body: bytes) -> PlainRecord | None:
    """What stands in an entry that EntryEncoder wrote. None where it says what a plain message has no place for: an explicit
    dedup id, a salt, or a header with a name of ours (such as a given hash key)."""
    size, at = _read_long(body, 0)
    key, at = body[at : at + size], at + size
    has_id, at = _read_long(body, at)
    if has_id:
        return None
    salt, at = _read_long(body, at)
    timestamp_ms, at = _read_long(body, at)
    headers, at = _read_headers(body, at)
    if salt or any(name.startswith(STAMP_HEADER) for name, _ in headers):
        return None
    has_value, at = _read_long(body, at)
    return PlainRecord(key, timestamp_ms, headers, body[at:] if has_value else None)


def _read_headers(body: bytes, at: int) -> tuple[list[tuple[str, bytes | None]], int]:
    headers: list[tuple[str, bytes | None]] = []
    count, at = _read_long(body, at)
    for _ in range(count):
        size, at = _read_long(body, at)
        name, at = body[at : at + size].decode(), at + size
        has_content, at = _read_long(body, at)
        content = None
        if has_content:
            size, at = _read_long(body, at)
            content, at = body[at : at + size], at + size
        headers.append((name, content))
    return headers, at + 1 if count else at  # the array ends with an empty block


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
