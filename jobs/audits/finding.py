"""What an audit found."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from pyspark.sql import DataFrame

EXAMPLES_MAX = 5


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that should not be: how often, and where it was met first."""

    problem: str
    count: int
    examples: tuple[str, ...] = ()


@dataclass(slots=True)
class Audit:
    """One table (or stream) against what it was made from. ``looked_at`` counts what was compared."""

    name: str
    against: str
    looked_at: dict[str, int] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        return not self.findings

    def add(self, problem: str, rows: DataFrame, columns: Sequence[str], order: Sequence[str] = ()) -> None:
        """Note the rows, if there are any, as a finding; the examples are the first by ``order`` (default: all columns)."""
        count = rows.count()
        if count:
            first = rows.select(*columns).orderBy(*(order or columns)).limit(EXAMPLES_MAX).collect()
            examples = tuple(", ".join(f"{name} {row[name]}" for name in columns) for row in first)
            self.findings.append(Finding(problem, count, examples))

    def to_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "against": self.against,
            "ok": self.ok,
            "looked_at": self.looked_at,
            "findings": [{"problem": f.problem, "count": f.count, "examples": list(f.examples)} for f in self.findings],
        }
