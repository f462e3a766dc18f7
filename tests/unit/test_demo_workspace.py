"""The demo's folder: made anew by every run, never anybody else's, its stack left up only where it was up before."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from jobs.demo.workspace import environment_of, workspace
from pipeline.errors import ConfigError


class FakeStack:
    """Stands for pipeline.local.stack: up or not, and what was asked of it."""

    def __init__(self) -> None:
        self.is_up = False

    def status(self, home: Path) -> SimpleNamespace:
        return SimpleNamespace(stack=object() if self.is_up else None)

    def down(self, home: Path) -> None:
        self.is_up = False


@pytest.fixture
def stack(monkeypatch: pytest.MonkeyPatch) -> FakeStack:
    fake = FakeStack()
    monkeypatch.setattr("jobs.demo.workspace.stack", fake)
    return fake


def test_a_run_finds_a_fresh_project_and_no_stack_of_the_run_before(tmp_path: Path, stack: FakeStack) -> None:
    with workspace(tmp_path) as place:
        stack.is_up = True
        (place.home / "left.txt").write_text("by the first run")
    assert not stack.is_up
    with workspace(tmp_path) as place:
        assert not (place.home / "left.txt").exists()
        assert place.config().stream("flights").avro_schema.is_file()
        assert place.config().warehouse == str(tmp_path / "demo" / ".headrace" / "warehouse")


def test_the_stack_is_left_up_when_it_was_up_before(tmp_path: Path, stack: FakeStack) -> None:
    with workspace(tmp_path):
        pass
    stack.is_up = True  # the user: cd .headrace/demo && headrace up
    for _ in range(2):
        with workspace(tmp_path) as place:
            assert place.stack_stays
            assert not stack.is_up  # the old data is not the new demo's
            stack.is_up = True
        assert stack.is_up


def test_the_stack_of_a_demo_that_was_killed_is_not_left_up(tmp_path: Path, stack: FakeStack) -> None:
    with workspace(tmp_path) as place:
        marker = (place.root / "demo.json").read_bytes()
    (place.root / "demo.json").write_bytes(marker.replace(b'"over": true', b'"over": false'))  # as SIGKILL leaves it
    assert not json.loads((place.root / "demo.json").read_text())["over"]
    stack.is_up = True
    with workspace(tmp_path) as place:
        stack.is_up = True
    assert not stack.is_up


def test_the_stack_is_taken_down_when_the_demo_fails(tmp_path: Path, stack: FakeStack) -> None:
    def fail() -> None:
        with workspace(tmp_path):
            stack.is_up = True
            raise ConfigError("on the way")

    with pytest.raises(ConfigError, match="on the way"):
        fail()
    assert not stack.is_up


@pytest.mark.parametrize("marker", [None, "not JSON", "[]", "{}"])
def test_a_folder_that_is_not_the_demos_is_refused_and_kept(tmp_path: Path, stack: FakeStack, marker: str | None) -> None:
    (tmp_path / "demo").mkdir()
    (tmp_path / "demo" / "thesis.txt").write_text("years of work")
    if marker is not None:
        (tmp_path / "demo" / "demo.json").write_text(marker)
    with pytest.raises(ConfigError, match="holds something else"), workspace(tmp_path):
        pass
    assert (tmp_path / "demo" / "thesis.txt").read_text() == "years of work"


def test_a_second_demo_at_the_same_time_is_refused(tmp_path: Path, stack: FakeStack) -> None:
    with workspace(tmp_path), pytest.raises(ConfigError, match="another demo runs"), workspace(tmp_path):
        pass


def test_the_callers_overrides_do_not_reach_the_demo() -> None:
    caller = {"HEADRACE__WAREHOUSE": "s3a://mine", "HEADRACE_HOME": "/theirs", "HEADRACE_CACHE": "/cache", "PATH": "/bin"}
    assert environment_of(Path("/demo/.headrace"), Path("/demo/headrace.yml"), caller) == {
        "HEADRACE_HOME": "/demo/.headrace",
        "HEADRACE_CONFIG": "/demo/headrace.yml",
        "HEADRACE_CACHE": "/cache",
        "PATH": "/bin",
    }
