"""What a service prints ends up in its log, whatever way it ends, and the log stays small."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

CODE = Path(__file__).parents[2]


def run(folder: Path, service: str, *arguments: str) -> tuple[int, str]:
    """Run ``service`` (Python source) as the stack does; its exit code and its log."""
    (folder / "service_of_the_test.py").write_text(service)
    log = folder / "service.log"
    command = [sys.executable, "-m", "pipeline.local.child", "--log", str(log), "--", "service_of_the_test", *arguments]
    environment = {**os.environ, "PYTHONPATH": f"{CODE}{os.pathsep}{folder}"}
    done = subprocess.run(command, env=environment, cwd=folder, timeout=60, check=False)
    return done.returncode, log.read_text()


def test_both_outputs_and_the_arguments_arrive(tmp_path: Path) -> None:
    service = "import os, sys\nprint(sys.argv[1:])\nprint('error', file=sys.stderr)\nos.write(2, b'from C\\n')\n"
    assert run(tmp_path, service, "--port", "1") == (0, "['--port', '1']\nerror\nfrom C\n")


@pytest.mark.parametrize(
    ("service", "code", "last"),
    [
        ("raise ValueError('why')", 1, "ValueError: why"),
        ("raise SystemExit('a sentence')", 1, "a sentence"),
        ("print('bye', end=''); raise SystemExit(7)", 7, "bye"),
    ],
)
def test_the_last_words_and_the_exit_code_survive(tmp_path: Path, service: str, code: int, last: str) -> None:
    actual, log = run(tmp_path, service)
    assert (actual, log.splitlines()[-1]) == (code, last)


def test_the_log_is_bounded_when_the_service_never_stops_talking(tmp_path: Path) -> None:
    run(tmp_path, "for number in range(200_000): print(f'{number:0200d}')")
    sizes = [path.stat().st_size for path in tmp_path.glob("service.log*")]
    assert len(sizes) == 3
    assert sum(sizes) <= 15_000_000
    assert (tmp_path / "service.log").read_text().endswith("199999\n")
