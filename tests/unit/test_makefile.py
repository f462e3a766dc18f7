"""The Makefile: every target that it declares, and every one that the docs name, has a rule that says what it does."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
MAKEFILE = (ROOT / "Makefile").read_text()
RULES = set(re.findall(r"^([a-z-]+):.*## \S", MAKEFILE, re.MULTILINE))


def test_every_declared_target_has_a_rule() -> None:
    declared = re.search(r"^\.PHONY: (.*)$", MAKEFILE, re.MULTILINE)
    assert declared
    assert set(declared[1].split()) == RULES


def test_every_target_that_the_docs_name_has_a_rule() -> None:
    texts = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md"), *(ROOT / "bench").glob("*.md")]
    named = {name for text in texts for name in re.findall(r"(?:`|^)make ([a-z-]+)", text.read_text(), re.MULTILINE)}
    assert {"demo", "test"} <= named
    assert named <= RULES
