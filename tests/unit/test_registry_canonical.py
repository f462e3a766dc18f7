"""The stored form of a schema, next to what Java's ``Schema.toString()`` (Avro 1.12.1) wrote for the same text."""

from __future__ import annotations

import pytest

from pipeline.schema.avro_tree import parse_tree
from pipeline.schema.canonical import canonical_text, java_double, normalized_text, resolved_text


@pytest.mark.parametrize(
    ("given", "java"),
    [
        ("int", '"int"'),
        (' {"type" : "int"} ', '"int"'),
        ('{"logicalType":"date","type":"int","x":{"b":1,"a":[]}}', '{"type":"int","logicalType":"date","x":{"b":1,"a":[]}}'),
        (
            '{"fields":[{"type":"int","default":1,"doc":"d","name":"a","order":"ignore","p":true,"aliases":["z","y"]}],'
            '"name":"n.R","type":"record","doc":"\\u00e9","prop":1.5}',
            '{"type":"record","name":"R","namespace":"n","doc":"é","fields":[{"name":"a","type":"int","doc":"d","default":1,'
            '"order":"ignore","aliases":["z","y"],"p":true}],"prop":1.5}',
        ),
        (
            '{"type":"record","name":"a.b.C","fields":[{"name":"x","type":{"type":"enum","name":"E","symbols":["A"]}},'
            '{"name":"y","type":"a.b.E"},{"name":"z","type":{"type":"fixed","name":"q.F","size":3}},{"name":"w","type":"q.F"}]}',
            '{"type":"record","name":"C","namespace":"a.b","fields":[{"name":"x","type":{"type":"enum","name":"E","symbols":["A"]}},'
            '{"name":"y","type":"E"},{"name":"z","type":{"type":"fixed","name":"F","namespace":"q","size":3}},{"name":"w","type":"q.F"}]}',
        ),
        (
            '{"type":"record","name":"n.R","fields":[{"name":"a","type":["null","R"],"order":"ascending"}],"aliases":["Old","m.O"]}',
            '{"type":"record","name":"R","namespace":"n","fields":[{"name":"a","type":["null","R"]}],"aliases":["Old","m.O"]}',
        ),
        ('{"type":"record","name":"C","fields":[{"name":"e","type":"double","default":1e10}]}',
         '{"type":"record","name":"C","fields":[{"name":"e","type":"double","default":1.0E10}]}'),
    ],
)  # fmt: skip
def test_the_stored_text_is_what_java_writes(given: str, java: str) -> None:
    assert canonical_text(parse_tree(given)) == java


@pytest.mark.parametrize(
    ("number", "java"),
    [(1e7, "1.0E7"), (9999999.5, "9999999.5"), (0.001, "0.001"), (0.00099, "9.9E-4"),
     (-12345678.9, "-1.23456789E7"), (-0.0, "-0.0"),
     (1e16, "1.0E16"), (1.7976931348623157e308, "1.7976931348623157E308")],
)  # fmt: skip
def test_numbers_are_written_as_java_writes_them(number: float, java: str) -> None:
    assert java_double(number) == java


def test_a_property_that_looks_like_a_mark_stays_itself() -> None:
    assert canonical_text(parse_tree('{"type":"string","p":"float","q":1e99}')) == '{"type":"string","p":"float","q":1.0E99}'


def test_referenced_types_stay_names_unless_resolved() -> None:
    airport = '{"type":"record","name":"geo.Airport","fields":[]}'
    tree = parse_tree('{"type":"record","name":"Flight","fields":[{"name":"to","type":"geo.Airport"}]}', [airport])
    assert canonical_text(tree).endswith('"type":"geo.Airport"}]}')
    assert resolved_text(tree).endswith('"type":{"type":"record","name":"Airport","namespace":"geo","fields":[]}}]}')


def test_normalized_text_does_not_depend_on_how_it_was_written() -> None:
    one = parse_tree('{"type":"record","name":"R","namespace":"n","aliases":["B","A"],"z":1,"a":{"y":1,"x":2},"fields":[]}')
    two = parse_tree('{"a":{"x":2,"y":1},"z":1,"name":"n.R","fields":[],"aliases":["n.A","B"],"type":"record"}')
    assert normalized_text(one) == normalized_text(two)
