"""The zip for ``spark-submit --py-files``: pipeline, connectors and jobs with their package data.

    python -m jobs.pyfiles [dist/headrace-pyfiles.zip]       (`make pyfiles`)

What they import (confluent-kafka, pydantic, …) holds compiled code and cannot come from a zip: it is installed where the
driver runs, and on executors where ordered functions run (docs/cluster.md).
"""

from __future__ import annotations

import sys
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGES = ("pipeline", "connectors", "jobs")
DEFAULT = Path("dist/headrace-pyfiles.zip")
_LEFT_OUT = {"__pycache__"}
_COMPILED = {".c", ".h", ".so", ".pyd"}  # optional, and no zip can hold it
_EPOCH = (1980, 1, 1, 0, 0, 0)  # the same sources make the same bytes


def build(into: Path = DEFAULT, root: Path = ROOT) -> Path:
    """Write the zip, replacing an older one whole; the same sources give the same bytes."""
    into.parent.mkdir(parents=True, exist_ok=True)
    partial = into.with_name(f"{into.name}.partial")
    with zipfile.ZipFile(partial, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in _files(root):
            entry = zipfile.ZipInfo(path.relative_to(root).as_posix(), _EPOCH)
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, path.read_bytes())
    partial.replace(into)
    return into


def _files(root: Path) -> Iterator[Path]:
    for package in PACKAGES:
        for path in sorted((root / package).rglob("*")):
            if path.is_file() and path.suffix not in _COMPILED and not _LEFT_OUT.intersection(path.parts):
                yield path


def main(arguments: Sequence[str] = ()) -> int:
    written = build(*(Path(argument) for argument in arguments[:1]))
    sys.stdout.write(f"{written}: {written.stat().st_size:,} bytes\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
