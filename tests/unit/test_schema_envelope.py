"""The aggregate's schema, what recognises it, and the framing around its bodies."""

from __future__ import annotations

import json
from typing import Any

import fastavro
import pytest

from pipeline.errors import DecodeError, InvariantError, SchemaError
from pipeline.schema.avro_types import Named, walk
from pipeline.schema.decode import AggregateDecoder, Entry
from pipeline.schema.encode import EntryEncoder, aggregate_body, compile_encoder
from pipeline.schema.envelope import EMPTY_AGGREGATE, envelope_text, is_envelope, value_schema_of
from pipeline.schema.framing import frame, frame_prefix, split_frame
from pipeline.schema.type_parser import parse_type
from pipeline.schema.value_schema import ValueSchema, parse_schema


def record(name: str = "V", namespace: str | None = None, **fields: Any) -> ValueSchema:
    tree: dict[str, Any] = {"type": "record", "name": name, "fields": [{"name": n, "type": kind} for n, kind in fields.items()]}
    return parse_schema(tree if namespace is None else {**tree, "namespace": namespace})


INNER = {"type": "record", "name": "I", "fields": [{"name": "x", "type": "int"}]}


def test_envelope_is_the_one_of_the_design() -> None:
    value = '{"type":"record","name":"V","fields":[{"name":"x","type":"int"}]}'
    assert envelope_text(parse_schema(value)) == (
        '{"type":"record","name":"HeadraceAggregate","fields":[{"name":"records","type":{"type":"array","items":'
        '{"type":"record","name":"HeadraceEntry","fields":['
        '{"name":"seq","type":"int"},{"name":"key","type":"string"},{"name":"id","type":["null","string"],"default":null},'
        '{"name":"salt","type":"int"},{"name":"timestamp","type":{"type":"long","logicalType":"timestamp-millis"}},'
        '{"name":"headers","type":{"type":"array","items":{"type":"record","name":"HeadraceHeader","fields":['
        '{"name":"key","type":"string"},{"name":"value","type":["null","bytes"]}]}}},'
        f'{{"name":"value","type":["null",{value}]}}]}}}}}}]}}'
    )


@pytest.mark.parametrize(("name", "namespace"), [("V", None), ("V", ""), ("V", "a.b"), ("c.V", None), ("c.V", "a.b")])
def test_names_inside_are_the_same_in_the_envelope_as_alone(name: str, namespace: str | None) -> None:
    schema = record(name, namespace, i=INNER, again="I", spaced={**INNER, "namespace": "s"}, back=["null", name.split(".")[-1]])
    envelope = json.loads(envelope_text(schema))
    alone = {avro.name for avro in walk(schema.type) if isinstance(avro, Named)}
    inside = {avro.name for avro in walk(parse_type(envelope)) if isinstance(avro, Named)}
    assert inside - alone == {"HeadraceAggregate", "HeadraceEntry", "HeadraceHeader"}
    assert alone < inside
    by_fastavro: dict[str, Any] = {}
    fastavro.parse_schema(envelope, named_schemas=by_fastavro)
    assert set(by_fastavro) == inside


def test_envelope_is_recognised_and_gives_its_value_schema_back() -> None:
    schema = record("V", "a.b", i=INNER)
    text = envelope_text(schema)
    assert is_envelope(text)
    assert value_schema_of(text) == schema
    # As a registry may give it back.
    assert value_schema_of(json.dumps(json.loads(text), indent=2, sort_keys=True)).full_name == "a.b.V"
    assert not is_envelope(schema.text)
    assert not is_envelope('"string"')
    assert not is_envelope('{"type":"record","name":"HeadraceAggregate","namespace":"other","fields":[]}')


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('{"name":"salt","type":"int"},', ""),
        ('"name":"salt","type":"int"', '"name":"salt","type":"long"'),
        ('"type":["null",{"type":"record","name":"V"', '"type":[{"type":"record","name":"V"'),
        ('"fields":[{"name":"records"', '"fields":[{"name":"more"'),
        ("timestamp-millis", "timestamp-micros"),
    ],
)
def test_envelope_is_refused_when_it_is_not_the_one_that_is_known(old: str, new: str) -> None:
    text = envelope_text(record(x="int"))
    assert old in text
    with pytest.raises(SchemaError, match="Upgrade"):
        AggregateDecoder(text.replace(old, new))


def test_end_is_an_aggregate_without_records() -> None:
    assert aggregate_body([]) == EMPTY_AGGREGATE
    assert AggregateDecoder(envelope_text(record(x="int"))).decode(EMPTY_AGGREGATE) == []


def test_decoder_resolves_to_the_readers_schema() -> None:
    written = record("V", "a", old="int", gone="string", more="int")
    reader = parse_schema(
        {
            "type": "record",
            "name": "a.V",
            "fields": [
                {"name": "more", "type": "long"},
                {"name": "new", "aliases": ["old"], "type": "double"},
                {"name": "added", "type": ["null", "string"], "default": None},
            ],
        }
    )
    value = {"old": 1, "gone": "x", "more": 2}
    expected = {"more": 2, "new": 1.0, "added": None}
    body = aggregate_body([(3, EntryEncoder(written).encode("k", "id", 4, 5, [("h", b"v"), ("n", None)], value))])
    for validation in ("needed", "always"):
        decoder = AggregateDecoder(envelope_text(written), reader, validation=validation)  # type: ignore[arg-type]
        assert decoder.is_envelope
        assert decoder.decode(body) == [Entry(3, "k", "id", 4, 5, [("h", b"v"), ("n", None)], expected)]
    plain = AggregateDecoder(written.text, reader)
    assert not plain.is_envelope
    assert plain.decode_value(compile_encoder(written)(value)) == expected


def test_decoder_takes_what_foreign_producers_write() -> None:
    assert AggregateDecoder('"string"').decode_value(b"\x04ab") == "ab"
    assert AggregateDecoder('{"type":"array","items":"int"}').decode_value(b"\x02\x02\x00") == [1]


def test_decoder_refuses_the_wrong_kind_of_call() -> None:
    with pytest.raises(InvariantError):
        AggregateDecoder('"string"').decode(b"\x00")
    with pytest.raises(InvariantError):
        AggregateDecoder(envelope_text(record(x="int"))).decode_value(b"\x00")


@pytest.mark.parametrize(
    "text", ["{", '{"type":"record","name":"R"}', '{"type":"record","name":"HeadraceAggregate","fields":[]}', "5"]
)
def test_decoder_refuses_a_writers_schema_that_is_none(text: str) -> None:
    with pytest.raises(SchemaError):
        AggregateDecoder(text)


def test_errors_hold_no_content_when_bytes_are_bad() -> None:
    schema = record(x={"type": "string", "logicalType": "uuid"})
    with pytest.raises(DecodeError) as caught:
        AggregateDecoder(schema.text).decode_value(b"\x12secret-42")
    assert "secret" not in str(caught.value)


def test_frame_is_confluents() -> None:
    assert frame(258, b"body") == b"\x00\x00\x00\x01\x02body" == frame_prefix(258) + b"body"
    assert split_frame(frame(2**31 - 1, b"")) == (2**31 - 1, b"")
    assert split_frame(memoryview(frame(7, b"x"))) == (7, b"x")


@pytest.mark.parametrize("schema_id", [-1, 2**31])
def test_frame_refuses_what_is_no_schema_id(schema_id: int) -> None:
    with pytest.raises(ValueError, match="not a schema id"):
        frame(schema_id, b"")


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (b"", "0 bytes"),
        (b"\x00\x00\x00\x01", "4 bytes"),
        (b"\x03\x00\x00\x00\x01", "starts with byte 3"),
        (b"\xff\x00\x00\x00\x01", "starts with byte 255"),
        (b"\x00\xff\xff\xff\xff", "more than a registry gives"),
    ],
)
def test_message_is_refused_when_it_is_not_framed(message: bytes, reason: str) -> None:
    with pytest.raises(DecodeError, match=reason):
        split_frame(message)
