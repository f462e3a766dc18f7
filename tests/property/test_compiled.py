"""What is compiled against what is not: the same bytes or nothing, over random schemas, values and records."""

from __future__ import annotations

import string
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from pipeline.compiled import _core as core
from pipeline.errors import SchemaMismatchError
from pipeline.produce.entries import Entries, Parts
from pipeline.schema.avro_types import Record, walk
from pipeline.schema.encode import EntryEncoder
from pipeline.schema.program import compiled_encoder
from pipeline.schema.value_schema import ValueSchema, parse_schema
from tests.property.test_encoder import JUNK, property_settings, schemas, values

TEXTS = st.one_of(st.text(max_size=20), st.text(string.ascii_letters, min_size=60, max_size=200))
IDS = st.one_of(st.none(), TEXTS)
TIMES_MS = st.integers(-(10**12), 10**13)


def python_s(schema: ValueSchema, key: Any, id: Any, timestamp_ms: int, value: Any) -> bytes | None:
    try:
        return EntryEncoder(schema).encode(key, id, 0, timestamp_ms, None, value)
    except SchemaMismatchError:
        return None


@property_settings
@given(st.data(), TEXTS, IDS, TIMES_MS)
def test_compiled_encoder_writes_what_the_python_one_writes(data: st.DataObject, key: str, id: str | None, ms: int) -> None:
    schema = data.draw(schemas())
    compiled = compiled_encoder(schema)
    recursive = any(isinstance(one, Record) and one.recursive for one in walk(schema.type))
    assert (compiled is None) is recursive
    for _ in range(3 if compiled else 0):
        value = data.draw(st.one_of(st.none(), values(schema.type)))
        assert compiled.encode(key, id, ms, value) in (None, python_s(schema, key, id, ms, value))


@property_settings
@given(st.data())
def test_compiled_encoder_writes_nothing_else_when_values_are_junk(data: st.DataObject) -> None:
    schema = data.draw(schemas())
    compiled = compiled_encoder(schema)
    if compiled is None:
        return
    value = data.draw(values(schema.type))
    for name in data.draw(st.lists(st.sampled_from([*value, "other"]), max_size=2)):
        value[name] = data.draw(JUNK)
    if data.draw(st.integers(0, 9)) == 0:
        value = data.draw(JUNK)
    key, id = data.draw(st.one_of(TEXTS, JUNK)), data.draw(st.one_of(IDS, JUNK))
    assert compiled.encode(key, id, 5, value) in (None, python_s(schema, key, id, 5, value))


FLAT = parse_schema(
    {
        "type": "record",
        "name": "Flat",
        "fields": [
            {"name": "text", "type": "string"},
            {"name": "small", "type": "int"},
            {"name": "large", "type": ["null", "long"]},
            {"name": "real", "type": "double"},
            {"name": "yes", "type": "boolean"},
            {"name": "raw", "type": ["bytes", "null"]},
            {"name": "list", "type": {"type": "array", "items": "int"}},
            {"name": "map", "type": {"type": "map", "values": ["null", "string"]}},
            {"name": "at", "type": {"type": "long", "logicalType": "timestamp-millis"}},
        ],
    }
)


@property_settings
@given(st.data())
def test_compiled_encoder_gives_up_no_ordinary_value(data: st.DataObject) -> None:
    compiled = compiled_encoder(FLAT)
    assert compiled is not None
    value = data.draw(values(FLAT.type))
    shuffled = dict(data.draw(st.permutations(list(value.items()))))
    assert compiled.encode("k", None, 5, shuffled) == python_s(FLAT, "k", None, 5, value) is not None


@property_settings
@given(st.lists(st.tuples(st.integers(0, 50), st.binary(max_size=300)), max_size=60), st.integers(0, 2**62), st.integers(1, 70))
def test_compiled_entries_are_what_parts_are(records: list[tuple[int, bytes]], first_seq: int, step: int) -> None:
    both: tuple[Entries, Entries] = (core.Entries(), Parts())
    for entries in both:
        relative_seq = 0
        entries.first_seq = first_seq
        for gap, body in records:
            entries.add(relative_seq, body)
            relative_seq += 1 + gap
    compiled, parts = both
    for _ in ("filled", "let go"):
        assert (compiled.count, compiled.size_bytes, compiled.first_seq) == (parts.count, parts.size_bytes, parts.first_seq)
        assert [compiled.seq_at(n) for n in range(parts.count)] == [parts.seq_at(n) for n in range(parts.count)]
        assert compiled.bodies() == parts.bodies()
        assert compiled.bodies(step) == parts.bodies(step)
        assert b"".join(compiled.content()) == b"".join(parts.content())
        compiled.let_go()
        parts.let_go()
