"""The public surface: names, errors, packaging."""

from __future__ import annotations

import inspect
import pickle
import re
import shutil
import zipfile
from pathlib import Path

import pytest

import pipeline
from pipeline import errors

ROOT = Path(__file__).parents[2]
ERRORS = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, errors.HeadraceError)]
FIELDS = {
    errors.SchemaMismatchError: ("pilot.age", "expected int, found str"),
    errors.RecordTooLargeError: (10, 5),
    errors.BufferFullError: (1, 2, 3, 4),
}


def test_public_names_are_sorted_and_exist() -> None:
    assert pipeline.__all__ == sorted(pipeline.__all__)
    assert all(hasattr(pipeline, name) for name in pipeline.__all__)


@pytest.mark.parametrize("kind", ERRORS, ids=lambda kind: kind.__name__)
def test_an_error_survives_pickling_whole(kind: type[errors.HeadraceError]) -> None:
    error = kind(*FIELDS.get(kind, ("what happened",)))
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is kind
    assert str(copy) == str(error)
    assert vars(copy) == vars(error)


def test_every_error_is_in_the_tree_of_the_modules_docstring() -> None:
    drawn = set(re.findall(r"(\w+Error)\b", errors.__doc__ or ""))
    assert drawn == {kind.__name__ for kind in ERRORS}


def test_no_package_shadows_a_folder_that_is_not_one() -> None:
    assert not (ROOT / "docker" / "__init__.py").exists(), "it would shadow the package `docker` of others"


def build_wheel(folder: Path) -> list[str]:
    """The names in a wheel of this project, built from a copy: a build leaves folders beside what it builds."""
    from build import ProjectBuilder

    source = folder / "source"
    for name in ("pipeline", "connectors", "jobs"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__", "*.so"))
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source / name)
    return zipfile.ZipFile(ProjectBuilder(source).build("wheel", folder)).namelist()


def compiled_in(names: list[str]) -> list[str]:
    return [name for name in names if name.startswith("pipeline/compiled/_core.") and not name.endswith(".pyi")]


def test_the_built_wheel_owns_the_three_packages_and_its_data(tmp_path: Path) -> None:
    names = build_wheel(tmp_path)
    tops = {name.split("/")[0] for name in names if not name.startswith("headrace-")}
    assert tops == {"pipeline", "connectors", "jobs"}
    for needed in ("pipeline/py.typed", "pipeline/local/jars.lock.json", "jobs/sql/delays.sql", "pipeline/produce/producer.py"):
        assert needed in names
    assert len(compiled_in(names)) == 1


def test_a_wheel_is_built_without_what_is_compiled_where_there_is_no_compiler(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CC", "/nowhere/cc")
    names = build_wheel(tmp_path)
    assert "pipeline/compiled/__init__.py" in names
    assert compiled_in(names) == []
