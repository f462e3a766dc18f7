"""The zip for spark-submit --py-files."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

from jobs import pyfiles


def test_the_zip_holds_the_packages_with_their_data_and_is_the_same_every_time(tmp_path: Path) -> None:
    first = pyfiles.build(tmp_path / "a" / "one.zip").read_bytes()
    assert pyfiles.build(tmp_path / "two.zip").read_bytes() == first
    names = set(zipfile.ZipFile(tmp_path / "two.zip").namelist())
    assert {"pipeline/local/jars.lock.json", "pipeline/py.typed", "jobs/sql/delays.sql", "jobs/run.py"} <= names
    assert {name.split("/")[0] for name in names} == {"pipeline", "connectors", "jobs"}
    assert not [name for name in names if "__pycache__" in name or name.endswith((".c", ".h", ".so"))]


def test_python_imports_from_the_zip_before_anything_that_is_installed(tmp_path: Path) -> None:
    archive = pyfiles.build(tmp_path / "one.zip")
    code = (
        "import jobs.mode, pipeline.config, pipeline.compiled; print(jobs.mode.__file__);"
        "print(pipeline.config.load_config.__module__); print(pipeline.compiled.core)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env={"PYTHONPATH": str(archive)}, cwd=tmp_path, text=True, capture_output=True, check=True
    )
    assert done.stdout.splitlines() == [str(archive / "jobs" / "mode.py"), "pipeline.config.load", "None"]
