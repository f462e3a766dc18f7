"""Runs the Ivy that pyspark's jars contain: it gets jars by coordinates, so no Maven is needed and no address is written here."""

from __future__ import annotations

import importlib.util
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.sax.saxutils import quoteattr

from pipeline.errors import StackError
from pipeline.local.java import Java
from pipeline.local.truststore import java_trust_options


@dataclass(frozen=True, slots=True, order=True)
class Coordinates:
    """What names one jar."""

    org: str
    name: str
    version: str

    @property
    def file_name(self) -> str:
        return f"{self.name}-{self.version}.jar"


class IvyError(Exception):
    """Ivy did not get what was asked for; ``lines`` is what it printed. Callers turn it into a sentence."""

    def __init__(self, lines: list[str]) -> None:
        super().__init__(lines[-1] if lines else "Ivy printed nothing")
        self.lines = lines


# usepoms=false: the lock names every jar, so no module description is read; 5 s in place of 62 s for the broker's jars.
_SETTINGS = """<ivysettings>
  <settings defaultResolver="central"/>
  <caches defaultCacheDir="${{headrace.ivy.cache}}"/>
  <resolvers>
    <ibiblio name="central" m2compatible="true" usepoms="{poms}" useMavenMetadata="false" checksums="{checksums}"/>
  </resolvers>
</ivysettings>
"""
_MODULE = """<ivy-module version="2.0">
  <info organisation="headrace" module="jars"/>
  <configurations><conf name="default"/></configurations>
  <dependencies>{dependencies}</dependencies>
</ivy-module>
"""
_PATTERN = "[organisation]/[module]/[revision]/[artifact]-[revision].[ext]"


def pyspark_jars() -> Path:
    """The folder of jars inside the installed pyspark (which is not imported). Raises StackError when there is none."""
    found = importlib.util.find_spec("pyspark")
    for place in (found.submodule_search_locations or ()) if found else ():
        folder = Path(place) / "jars"
        if folder.is_dir():
            return folder
    raise StackError("pyspark is not installed, and its Ivy downloads the jars: run `make install`, or install headrace[spark]")


def retrieve(
    java: Java,
    wanted: Sequence[Coordinates],
    into: Path,
    *,
    transitive: bool,
    on_line: Callable[[str], None] | None = None,
) -> dict[Coordinates, Path]:
    """Download ``wanted`` (with all they depend on when ``transitive``) into the empty folder ``into``.

    Returns where each jar is. Raises IvyError when one is missing; nothing is verified here. ``on_line`` sees Ivy's output
    as it comes.
    """
    into.mkdir(parents=True, exist_ok=True)
    settings, module = into / "ivysettings.xml", into / "ivy.xml"
    settings.write_text(_SETTINGS.format(poms=str(transitive).lower(), checksums="sha1" if transitive else ""), encoding="utf-8")
    module.write_text(_MODULE.format(dependencies="".join(_dependency(one, transitive) for one in wanted)), encoding="utf-8")
    command = [
        *(str(java.executable), *java_trust_options(into), f"-Dheadrace.ivy.cache={into / 'cache'}"),
        *("-cp", str(_ivy_jar()), "org.apache.ivy.Main", "-settings", str(settings), "-ivy", str(module)),
        # `bundle` is what the poms of OSGi-minded projects call a jar.
        *(("-types", "jar", "bundle") if transitive else ()),
        *("-retrieve", str(into / "jars" / _PATTERN)),
    ]
    lines: list[str] = []
    pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    with subprocess.Popen(command, text=True, errors="replace", **pipes) as process:  # type: ignore[call-overload]
        try:
            for line in process.stdout or ():
                lines.append(line.rstrip())
                if on_line is not None:
                    on_line(lines[-1])
        except BaseException:
            process.kill()
            raise
    if process.returncode != 0:
        raise IvyError(lines)
    return {_coordinates(path, into / "jars"): path for path in sorted((into / "jars").rglob("*.jar"))}


def _dependency(one: Coordinates, transitive: bool) -> str:
    conf = "default->runtime,master" if transitive else "default->*"
    return (
        f"<dependency org={quoteattr(one.org)} name={quoteattr(one.name)} rev={quoteattr(one.version)} "
        f'conf="{conf}" transitive="{str(transitive).lower()}"/>'
    )


def _coordinates(path: Path, below: Path) -> Coordinates:
    org, name, version, _ = path.relative_to(below).parts
    return Coordinates(org, name, version)


def _ivy_jar() -> Path:
    folder = pyspark_jars()
    for jar in sorted(folder.glob("ivy-*.jar")):
        return jar
    raise StackError(f"{folder} holds no ivy-*.jar: reinstall pyspark (`make install`)")
