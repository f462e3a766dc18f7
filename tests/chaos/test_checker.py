"""The checker can fail: each demand, broken once."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

spec = importlib.util.spec_from_file_location("chaos_checker", Path(__file__).parent / "checker.py")
assert spec
assert spec.loader
checker = importlib.util.module_from_spec(spec)
import sys  # noqa: E402

sys.modules["chaos_checker"] = checker
spec.loader.exec_module(checker)

GOOD = ["1 p-0 0 p 0", "2 p-0 25 p 25", "3 p-1 1 p 1", "4 p-0 25 p 25"]


def write(folder: Path, handled: list[str], acknowledged: list[int]) -> Path:
    (folder / "c.handled").write_text("".join(line + "\n" for line in handled))
    (folder / "p.acknowledged").write_text("".join(f"{number}\n" for number in acknowledged))
    return folder


def test_it_is_content_when_all_was_handled_in_order(tmp_path: Path) -> None:
    assert checker.problems(write(tmp_path, GOOD, [0, 1, 25])) == []


@pytest.mark.parametrize(
    ("handled", "acknowledged", "word"),
    [
        (GOOD, [0, 1, 25, 50], "lost"),
        (["1 p-0 25 p 25", "2 p-0 0 p 0"], [0, 25], "out of order"),
        ([*GOOD, "5 p-0 25 p 26"], [0], "another dedup id"),
    ],
)
def test_it_finds_what_is_lost_out_of_order_or_another_record(
    tmp_path: Path, handled: list[str], acknowledged: list[int], word: str
) -> None:
    [problem] = checker.problems(write(tmp_path, handled, acknowledged))
    assert word in problem
