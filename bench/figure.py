"""A figure, what it stands beside, and the table that shows them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

from rich.console import Console
from rich.table import Table

from bench.schema import ORDER, write_project
from pipeline.config import Config, load_config


@dataclass(frozen=True)
class Figure:
    """One value in ``unit``; ``beside`` is what the plain way, a peer or ourselves without something gave in the same run."""

    section: str
    name: str
    value: float
    unit: str
    beside: float | None = None
    beside_name: str = ""

    @property
    def ratio(self) -> float | None:
        return self.value / self.beside if self.beside else None

    def to_json(self) -> dict[str, Any]:
        return asdict(self) | {"ratio": self.ratio}


@dataclass(frozen=True)
class Arena:
    """What a section runs in: a stack is up, ``folder`` is its own."""

    folder: Path
    records: int
    rounds: int
    console: Console
    table_records: int = 2_000_000
    table_rounds: int = 4

    def say(self, text: str) -> None:
        self.console.print(text, highlight=False, style="dim")

    def project(
        self, stream: str, *, table: bool = False, schema: dict[str, Any] = ORDER, aggregation: str | None = None
    ) -> Config:
        """A configuration with one stream of orders, or of records of another schema."""
        return load_config(write_project(self.folder / stream, stream, table, schema, aggregation))


def percentile(values: Sequence[float], p: float) -> float:
    """The value that ``p`` percent of the values do not exceed (nearest rank)."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, max(0, round(p / 100 * len(ordered) + 0.5) - 1))]


def paired(ours: Sequence[float], beside: Sequence[float]) -> tuple[float, float]:
    """Ours and what it stands beside, measured next to each other round by round: the median of ours, and what the median of
    the rounds' ratios makes of it. A machine that slows down between rounds then slows both."""
    value = median(ours)
    return value, value / median(one / other for one, other in zip(ours, beside, strict=True))


def show(figures: Sequence[Figure], title: str) -> None:
    table = Table(title=title, title_justify="left")
    for column in ("", "ours", "unit", "beside it", "", "ratio"):
        table.add_column(column, justify="right" if column in ("ours", "beside it", "ratio") else "left")
    section = None
    for figure in figures:
        if section not in (None, figure.section):
            table.add_section()
        section = figure.section
        beside = "" if figure.beside is None else number(figure.beside)
        ratio = "" if figure.ratio is None else f"{figure.ratio:.2f}"
        table.add_row(figure.name, number(figure.value), figure.unit, beside, figure.beside_name, ratio)
    Console().print(table)


def number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
