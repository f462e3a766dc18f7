"""Schema files against their released versions, as `headrace schema check` and `make schemas-check` compare them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from pipeline.cli.main import app
from pipeline.errors import SchemaError
from pipeline.schema.compatibility import Level
from pipeline.schema.releases import check_file

REPOSITORY = Path(__file__).parents[2]


def schema(*fields: dict[str, Any], name: str = "Order", **more: Any) -> str:
    return json.dumps({"type": "record", "name": name, "namespace": "shop", "fields": list(fields), **more})


ITEM = {"name": "item", "type": "string"}
PRICE = {"name": "price", "type": ["null", "double"], "default": None}
NUMBER = {"name": "number", "type": "int"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "released").mkdir()
    (tmp_path / "released" / "order.1.avsc").write_text(schema(ITEM, NUMBER))
    (tmp_path / "released" / "order.2.avsc").write_text(schema(ITEM, PRICE))
    return tmp_path


def problems(folder: Path, text: str, level: Level = Level.BACKWARD_TRANSITIVE) -> tuple[str, ...]:
    (folder / "order.avsc").write_text(text)
    return check_file(folder / "order.avsc", level).problems


def test_a_schema_that_reads_every_released_version_is_fine(folder: Path) -> None:
    assert problems(folder, schema(ITEM, PRICE, {"name": "note", "type": "string", "default": ""})) == ()


def test_a_breaking_change_names_the_path_and_the_rule(folder: Path) -> None:
    (reason,) = problems(folder, schema(ITEM, PRICE, {"name": "note", "type": "string"}))
    assert "READER_FIELD_MISSING_DEFAULT_VALUE" in reason
    assert "/fields/2" in reason


def test_every_released_version_counts_and_not_the_newest_only(folder: Path) -> None:
    text = schema(ITEM, {"name": "number", "type": "string", "default": ""})
    assert problems(folder, text, Level.BACKWARD) == ()
    assert "TYPE_MISMATCH" in problems(folder, text)[0]


def test_another_name_of_the_record_needs_an_alias(folder: Path) -> None:
    assert "shop.Order" in problems(folder, schema(ITEM, name="Sale"))[0]
    assert problems(folder, schema(ITEM, name="Sale", aliases=["Order"])) == ()


def test_a_released_schema_without_its_file_is_a_breaking_change(folder: Path) -> None:
    (folder / "other.avsc").write_text(schema(ITEM, name="Other"))
    done = CliRunner().invoke(app, ["schema", "check", str(folder), "--json"])
    rows = {Path(row["file"]).name: row for row in json.loads(done.output)["schemas"]}
    assert done.exit_code == 1
    assert rows["other.avsc"]["problems"] == []
    assert rows["order.avsc"]["released"] == [1, 2]
    assert "restore it" in rows["order.avsc"]["problems"][0]


def test_a_released_file_without_a_number_is_named(folder: Path) -> None:
    (folder / "released" / "order.avsc").write_text(schema(ITEM))
    with pytest.raises(SchemaError, match=r"NAME\.NUMBER"):
        problems(folder, schema(ITEM))


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("{", "not JSON"),
        ('{"type": "record", "name": "R"}', "fields"),
        ('"' + "x" * 1_000_001 + '"', "1,000,000 bytes"),
        ('{"type":"array","items":' * 1_000 + '"int"' + "}" * 1_000, "nested|record"),
        (schema({"name": "f", "type": {"type": "fixed", "name": "F", "size": 1}},
                {"name": "g", "type": {"type": "fixed", "name": "F", "size": 2}}), "twice"),
    ],
    ids=["not JSON", "not Avro", "1 MB", "1,000 levels", "duplicate names"],
)  # fmt: skip
def test_a_file_that_is_no_schema_is_one_clear_sentence(tmp_path: Path, text: str, word: str) -> None:
    (tmp_path / "bad.avsc").write_text(text)
    done = CliRunner().invoke(app, ["schema", "check", str(tmp_path / "bad.avsc")])
    assert done.exit_code == 1
    assert isinstance(done.exception, SchemaError)
    message = str(done.exception)
    assert message.startswith(str(tmp_path / "bad.avsc"))
    assert "\n" not in message
    assert len(message) < 500
    assert any(one in message for one in word.split("|"))


def test_the_projects_own_schemas_can_follow_what_was_released() -> None:
    done = CliRunner().invoke(app, ["schema", "check", str(REPOSITORY / "schemas"), "--json"])
    assert done.exit_code == 0, done.output
    assert all(row["released"] for row in json.loads(done.output)["schemas"])
