"""Schema files beside their released versions: ``schemas/released/NAME.1.avsc``, ``NAME.2.avsc``, … of ``schemas/NAME.avsc``.

What was released may have been written, so every later version must be able to read it. Released files are kept in git and
never change; a schema that was released and has no file any more is a breaking change too.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import SchemaError
from pipeline.schema.avro_tree import Node, parse_tree
from pipeline.schema.compatibility import Level, check
from pipeline.schema.envelope import envelope_text
from pipeline.schema.value_schema import ValueSchema, load_schema

RELEASED_FOLDER = "released"
SUFFIX = ".avsc"
_VERSION = re.compile(r"(.+)\.([1-9][0-9]{0,5})")


@dataclass(frozen=True, slots=True)
class Checked:
    """A schema file, the versions that it was compared with, and why it may not follow them (empty if it may)."""

    path: Path
    full_name: str
    released: tuple[int, ...]
    problems: tuple[str, ...]


def schema_files(paths: Iterable[Path]) -> list[Path]:
    """The files of ``paths``; a folder stands for the ``*.avsc`` in it, those included that have released versions only."""
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            released = (path / f"{stem}{SUFFIX}" for stem in _released(path))
            found += sorted({*path.glob(f"*{SUFFIX}"), *released})
        else:
            found.append(path)
    return found


def check_file(path: Path, level: Level = Level.BACKWARD_TRANSITIVE) -> Checked:
    """One schema file against its released versions. Raises SchemaError where a file is no schema of a stream."""
    versions = _released(path.parent).get(path.stem, {})
    if versions and not path.exists():
        why = f"it was released ({', '.join(map(str, sorted(versions)))}) and is gone: topics may hold its records; restore it"
        return Checked(path, "", tuple(sorted(versions)), (why,))
    schema = load_schema(path)
    released = sorted(versions)
    problems = incompatibilities(schema, [load_schema(versions[number]) for number in released], level)
    return Checked(path, schema.full_name, tuple(released), tuple(problems))


def incompatibilities(new: ValueSchema, previous: Sequence[ValueSchema], level: Level) -> list[str]:
    """Why ``new`` may not follow ``previous`` (oldest first) in a stream; empty if it may.

    The schema is looked at alone, for the shorter paths, and then inside the aggregate, which is what messages are written
    with and what the registry compares.
    """
    if reasons := check(_tree(new.text), [_tree(old.text) for old in previous], level):
        return reasons
    return check(_tree(envelope_text(new)), [_tree(envelope_text(old)) for old in previous], level)


def _tree(text: str) -> Node:
    return parse_tree(text).root


def _released(folder: Path) -> dict[str, dict[int, Path]]:
    found: dict[str, dict[int, Path]] = {}
    for path in (folder / RELEASED_FOLDER).glob(f"*{SUFFIX}"):
        match = _VERSION.fullmatch(path.stem)
        if match is None:
            raise SchemaError(f"{path}: a released version is named NAME.NUMBER{SUFFIX}, such as flights.1{SUFFIX}")
        found.setdefault(match.group(1), {})[int(match.group(2))] = path
    return found
