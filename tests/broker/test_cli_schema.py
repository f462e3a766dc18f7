"""`headrace schema` on a real registry."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from pipeline.cli.main import app
from pipeline.config import Config
from pipeline.errors import HeadraceError, SchemaError, UnknownStreamError

Make = Callable[..., tuple[Config, str]]


def run(config: Config, *arguments: str) -> Any:
    done = CliRunner().invoke(app, ["--config", str(config.path), "schema", *arguments, "--json"], env={"HEADRACE_CONFIG": None})
    if isinstance(done.exception, HeadraceError):
        raise done.exception
    return json.loads(done.stdout) | {"exit_code": done.exit_code}


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADRACE_CONFIG", "")  # the command sets it for the whole process


def test_a_registered_schema_is_listed_and_shown_with_the_record_inside(order_config: Make) -> None:
    config, stream = order_config()
    ids = run(config, "register", stream)["ids"]
    assert run(config, "register", stream)["ids"] == ids
    [row] = [row for row in run(config, "list")["subjects"] if row["stream"] == stream]
    assert (row["subject"], row["versions"], row["newest_id"]) == (f"{stream}-value", 1, ids[f"{stream}-value"])
    for shown in (run(config, "show", stream), run(config, "show", f"{stream}-value", "--version", "1")):
        assert (shown["id"], shown["version"]) == (ids[f"{stream}-value"], 1)
        assert (shown["schema"]["name"], shown["value"]["name"]) == ("HeadraceAggregate", "Order")
    plain = run(config, "show", str(ids["shop.Order"]))
    assert (plain["schema"]["name"], plain["value"]) == ("Order", None)
    assert "shop.Order" in plain["subjects"]


def test_what_the_registry_does_not_have_is_said(order_config: Make) -> None:
    config, stream = order_config()
    run(config, "register", stream)
    for arguments, word in (
        (("show", "no such"), "no versions of subject"),
        (("show", stream, "--version", "9"), "no version 9"),
        (("show", "999999"), "no schema 999999"),
    ):
        with pytest.raises(SchemaError, match=word):
            run(config, *arguments)
    with pytest.raises(UnknownStreamError):
        run(config, "register", "nosuch")


def test_a_breaking_schema_is_refused_with_the_reason_and_nothing_is_registered(order_config: Make, tmp_path: Path) -> None:
    config, stream = order_config()
    file = tmp_path / "order.avsc"
    tree = json.loads(file.read_text()) | {"name": "Sale"}  # registered under its own name too, which tests share
    file.write_text(json.dumps(tree))
    run(config, "register", stream)
    tree["fields"].append({"name": "price", "type": "double"})
    file.write_text(json.dumps(tree))
    checked = run(config, "check", str(file), "--stream", stream)
    assert checked["exit_code"] == 1
    assert "READER_FIELD_MISSING_DEFAULT_VALUE" in checked["schemas"][0]["problems"][0]
    with pytest.raises(SchemaError, match="price"):
        run(config, "register", stream)
    assert run(config, "show", stream)["version"] == 1
    tree["fields"][-1]["default"] = 0.0
    file.write_text(json.dumps(tree))
    assert run(config, "check", str(file), "--stream", stream)["exit_code"] == 0
    run(config, "register", stream)
    assert run(config, "show", stream)["version"] == 2
