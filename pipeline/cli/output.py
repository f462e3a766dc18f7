"""Printing for people (tables) and machines (JSON), in one place."""

from __future__ import annotations

import base64
import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import date, datetime, time
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

Json = Annotated[bool, typer.Option("--json", help="Print JSON, for machines.")]


def print_json(value: Any) -> None:
    """One JSON value and a newline on standard output."""
    sys.stdout.write(json.dumps(value, ensure_ascii=False) + "\n")
    sys.stdout.flush()


def print_table(title: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """A table on standard output; numbers are put to the right."""
    table = Table(title=title, title_justify="left")
    content = [list(row) for row in rows]
    for index, column in enumerate(columns):
        numeric = bool(content) and all(isinstance(row[index], int | float) for row in content)
        table.add_column(column, justify="right" if numeric else "left", overflow="fold")
    for row in content:
        table.add_row(*(f"{cell:,}" if isinstance(cell, int) else "" if cell is None else str(cell) for cell in row))
    Console().print(table)


def plain(value: Any) -> Any:
    """A value of Avro's types as JSON has it: bytes in base64, times in ISO 8601."""
    if isinstance(value, Mapping):
        return {str(name): plain(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [plain(inner) for inner in value]
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, datetime | date | time):
        return value.isoformat()
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)


def say(text: str) -> None:
    """A sentence on standard output."""
    Console().print(text, highlight=False)
