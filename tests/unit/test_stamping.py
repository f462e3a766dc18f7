"""What messages aggregates become, and what of an entry a plain message carries."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.model.keys import with_hash
from pipeline.model.stamp import CLAIM_HEADER, STAMP_HEADER, decode_stamp
from pipeline.produce.aggregate import Aggregate
from pipeline.produce.stamping import Message, Messages, Stamper, message_of
from pipeline.schema.encode import EntryEncoder, compile_encoder
from pipeline.schema.entry import plain_record
from pipeline.schema.framing import frame
from pipeline.schema.value_schema import parse_schema
from pipeline.schema.varint import RELATIVE

SCHEMA = parse_schema({"type": "record", "name": "R", "fields": [{"name": "n", "type": "int"}]})
ENTRY, VALUE = EntryEncoder(SCHEMA).encode, compile_encoder(SCHEMA)
AT_MS = 1_700_000_000_000
HEADERS = st.lists(st.tuples(st.text(max_size=5).map("h-".__add__), st.none() | st.binary(max_size=200)), max_size=3)


def sent(*entries: bytes, by_key: bool = True, claim: bytes | None = None) -> Message:
    aggregate = Aggregate("s0", AT_MS)
    aggregate.claim = claim
    for seq, entry in enumerate(entries, 3):
        aggregate.append(seq, None, entry)
    return Messages(5, 7, by_key).of(aggregate, Stamper("p", 1).stamp(aggregate, AT_MS))


@given(key=st.text(max_size=200), headers=HEADERS, n=st.none() | st.integers(-(2**31), 2**31 - 1), by_key=st.booleans())
def test_a_record_alone_is_a_plain_message_with_key_time_headers_and_value_of_its_entry(
    key: str, headers: Any, n: int | None, by_key: bool
) -> None:
    value = None if n is None else {"n": n}
    message = sent(ENTRY(key, None, 0, AT_MS, headers, value), by_key=by_key)
    assert (message.key, message.timestamp_ms) == (key.encode(), AT_MS)
    assert message.value == (None if value is None else frame(7, VALUE(value)))
    (name, stamp), *rest = message.headers
    assert name == STAMP_HEADER
    assert decode_stamp(stamp or b"").count == 1
    assert rest == headers


@pytest.mark.parametrize(
    ("id", "salt", "headers"),
    [
        ("id-1", 0, None),
        (None, 2, None),
        (None, 0, with_hash(None, 11)),
        (None, 0, [("a", None), (STAMP_HEADER, b"x")]),
        (None, 0, [(CLAIM_HEADER, b"")]),
    ],
)
def test_what_a_plain_message_has_no_place_for_goes_as_an_aggregate_of_one(id: str | None, salt: int, headers: Any) -> None:
    entry = ENTRY("k", id, salt, AT_MS, headers, {"n": 1})
    assert plain_record(entry) is None
    for by_key, key in ((True, b"k"), (False, b"s0")):
        message = sent(entry, by_key=by_key)
        assert (message.key, message.value) == (key, message_of(5, 1, (RELATIVE[0], entry)))
        assert [name for name, _ in message.headers] == [STAMP_HEADER]


def test_records_together_are_an_aggregate_by_their_shard() -> None:
    entries = [ENTRY("k", None, 0, AT_MS, None, {"n": n}) for n in (1, 2)]
    message = sent(*entries, by_key=False)
    content = (RELATIVE[0], entries[0], RELATIVE[1], entries[1])
    assert (message.key, message.value, message.timestamp_ms) == (b"s0", message_of(5, 2, content), 0)


def test_a_claimed_record_carries_its_reference_by_its_own_key_where_records_go_alone() -> None:
    stub = ENTRY("k", None, 0, 0, None, None)
    for by_key, key in ((True, b"k"), (False, b"s0")):
        message = sent(stub, by_key=by_key, claim=b"reference")
        assert (message.key, message.value) == (key, b"reference")
        assert message.headers[1] == (CLAIM_HEADER, b"")
