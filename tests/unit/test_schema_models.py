"""Schemas from classes and from JSON lines, and typed values both ways."""

from __future__ import annotations

import dataclasses
import datetime
import enum
import json
import uuid
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, Field
from typer.testing import CliRunner

from pipeline.cli.main import app
from pipeline.errors import DecodeError, SchemaError, SchemaMismatchError
from pipeline.schema.decode import AggregateDecoder
from pipeline.schema.encode import compile_encoder
from pipeline.schema.infer import infer
from pipeline.schema.models import reader_of, schema_of

UTC = datetime.UTC


class Status(enum.Enum):
    DEPARTED = "DEPARTED"
    ARRIVED = "ARRIVED"


@dataclasses.dataclass
class Airport:
    code: str
    location: tuple[float, ...] = ()


class Flight(BaseModel):
    number: int
    status: Status
    at: datetime.datetime
    day: datetime.date
    time: datetime.time
    id: uuid.UUID
    fare: Annotated[Decimal, Field(max_digits=9, decimal_places=2)]
    origin: Airport
    via: list[Airport] = Field(default_factory=list)
    delay: float | None = None
    note: str | None = "none"
    cabin: Literal["A", "B"] = "A"
    seats: dict[str, bool] = {}
    gate: int | str
    raw: bytes = b""
    previous: Flight | None = None


@dataclasses.dataclass
class Leg:
    flight: int
    origin: Airport
    status: Status = Status.ARRIVED
    fare: Annotated[Decimal, Field(max_digits=5, decimal_places=1)] | None = None


def flight(**other: Any) -> Flight:
    values: dict[str, Any] = {
        "number": 1 << 40, "status": Status.ARRIVED, "at": datetime.datetime(2013, 1, 1, 5, 15, tzinfo=UTC),
        "day": datetime.date(2013, 1, 1), "time": datetime.time(5, 15), "id": uuid.uuid4(), "fare": Decimal("123.45"),
        "origin": Airport("EWR", (40.7, -74.2)), "gate": "B7",
    }  # fmt: skip
    return Flight(**values | other)


@pytest.mark.parametrize(
    "value",
    [
        flight(),
        flight(via=[Airport("JFK"), Airport("LGA", (1.0,))], delay=3.5, note=None, seats={"1A": True}, gate=7, raw=b"\x00",
               previous=flight(number=2)),
        Leg(7, Airport("JFK")),
        Leg(7, Airport("JFK"), Status.DEPARTED, Decimal("12.5")),
    ],
)  # fmt: skip
def test_an_instance_comes_back_as_it_was(value: Any) -> None:
    schema = schema_of(type(value), "air")
    assert schema.full_name == f"air.{type(value).__name__}"
    body = compile_encoder(schema)(value)
    assert reader_of(type(value))(AggregateDecoder(schema.text).decode_value(body)) == value


def test_defaults_are_the_schemas_defaults() -> None:
    fields = {one["name"]: one for one in json.loads(schema_of(Flight).text)["fields"]}
    assert (fields["delay"]["type"], fields["delay"]["default"]) == (["null", "double"], None)
    assert (fields["note"]["type"], fields["note"]["default"]) == (["string", "null"], "none")
    assert (fields["via"]["default"], fields["seats"]["default"], fields["cabin"]["default"]) == ([], {}, "A")
    assert "default" not in fields["raw"]
    leg = {one["name"]: one for one in json.loads(schema_of(Leg).text)["fields"]}
    assert leg["status"]["default"] == "ARRIVED"


def test_a_type_without_a_place_in_avro_is_named() -> None:
    class Bad(BaseModel):
        price: Decimal

    class Worse(BaseModel):
        what: complex = 1j

        model_config = {"arbitrary_types_allowed": True}

    class Symbols(BaseModel):
        kind: Literal["no-name"]

    said = {Bad: r"Bad\.price: say how large", Worse: r"Worse\.what", Symbols: "letters, digits", int: "neither"}
    for model, words in said.items():
        with pytest.raises(SchemaError, match=words):
            schema_of(model)


def test_a_value_that_does_not_fit_its_model_is_said_without_its_content() -> None:
    with pytest.raises(DecodeError, match=r"does not fit the model Airport: code \(string_type\)") as caught:
        reader_of(Airport)({"code": 12345, "location": []})
    assert "12345" not in str(caught.value)


def test_an_instance_of_another_class_is_refused_by_its_fields() -> None:
    with pytest.raises(SchemaMismatchError, match="no such field"):
        compile_encoder(schema_of(Airport))(Leg(1, Airport("X")))


# -- JSON lines --------------------------------------------------------------------------------------------------------

LINES = [
    {"id": 1, "name": "a", "price": 1, "tags": [], "place": {"x": 1}, "late": True, "odd": 1,
     "nothing": None},
    {"id": 2**40, "name": None, "price": 1.5, "tags": ["t"], "place": {"x": 2, "y": "z"}, "late": False, "odd": "one",
     "nothing": None, "more": [{"x": 1}, {"x": None}]},
]  # fmt: skip


def test_records_that_were_seen_fit_the_schema_that_was_inferred() -> None:
    schema = infer((json.dumps(line) for line in LINES), "Order", "shop")
    fields = {one["name"]: one["type"] for one in json.loads(schema.text)["fields"]}
    assert (fields["id"], fields["name"], fields["price"]) == ("long", ["null", "string"], "double")
    assert fields["tags"] == {"type": "array", "items": "string"}
    assert (fields["late"], fields["odd"]) == ("boolean", ["long", "string"])
    assert fields["nothing"] == ["null", "string"]
    assert fields["more"][0] == "null"
    encode, decoder = compile_encoder(schema), AggregateDecoder(schema.text)
    for line in LINES:
        place = {"y": None} | line["place"]  # type: ignore[operator]
        assert decoder.decode_value(encode(line)) == {"more": None} | line | {"place": place}


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        (["[1]"], ":1: an object is expected"),
        (['{"a": 1}', "{"], ":2: not JSON"),
        (['{"no name": 1}'], "'no name' is not a field's name"),
        ([], "no records"),
        (['{"a": ' + "[" * 100_000 + "]" * 100_000 + "}"], "not JSON|inside each other"),
        (['{"a": ' + "[" * 50 + "]" * 50 + "}"], "inside each other"),
        (["{" + ",".join(f'"f{n}": 1' for n in range(2_001)) + "}"], "keys of a map"),
    ],
)
def test_lines_that_make_no_schema_are_named(lines: list[str], words: str) -> None:
    with pytest.raises(SchemaError, match=words):
        infer(lines, "R", source="x.jsonl")


def test_the_command_prints_a_schema_that_the_check_takes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "late orders.jsonl").write_text("".join(json.dumps(line) + "\n" for line in LINES))
    done = CliRunner().invoke(app, ["schema", "infer", str(tmp_path / "late orders.jsonl"), "--namespace", "shop"])
    (tmp_path / "order.avsc").write_text(done.stdout)
    assert json.loads(done.stdout)["name"] == "LateOrders"
    assert CliRunner().invoke(app, ["schema", "check", str(tmp_path / "order.avsc")]).exit_code == 0
    (tmp_path / "shapes_of_mine.py").write_text("import dataclasses\n@dataclasses.dataclass\nclass Shape:\n    side: float\n")
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(app, ["schema", "infer", "shapes_of_mine:Shape", "--json"])
    assert json.loads(done.stdout)["fields"] == [{"name": "side", "type": "double"}]
    for source in ("shapes_of_mine:Other", "no_such_module:X", "nosuch.jsonl"):
        assert isinstance(CliRunner().invoke(app, ["schema", "infer", source]).exception, SchemaError)
