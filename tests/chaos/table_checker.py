"""What the chaos test demands of tables, told from their files and from what producers were told is acknowledged. Shares no
code with the product: bronze is read as Parquet files that Delta's log, replayed here, says are current.

Workers put {"item": "<producer>-<number % 25>", "number": number} for number = 0, 1, 2 …, in order, under the item as key. So

- bronze may at any time hold of each item nothing but a beginning of its numbers, each once (`problems_meanwhile`);
- in the end it holds what was acknowledged, each once, in the order of each key (`problems`);
- silver is the newest number of each item, deleted where delete_when says so, and gold counts what is left.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pyarrow.dataset as ds

KEYS = 25
DELETED_EVERY = 7
"""Numbers that are a multiple of it delete: ``delete_when: number % 7 = 0``."""


@dataclass(frozen=True)
class Row:
    item: str
    number: int
    order: tuple[int, int, int]


def read_bronze(table: Path) -> list[Row]:
    """The rows of the newest version; rejected ones fail."""
    files = current_files(table)
    if not files:
        return []
    columns = {"item": ds.field("item"), "number": ds.field("number"), "reason": ds.field("_rejected", "reason")}
    columns |= {name: ds.field("_meta", "order", name) for name in ("generation", "offset", "index")}
    found = ds.dataset([str(table / name) for name in files], format="parquet").to_table(columns=columns).to_pylist()
    if rejected := [row["reason"] for row in found if row["reason"] is not None]:
        raise AssertionError(f"{len(rejected)} messages were rejected: {rejected[:3]}")
    return [Row(row["item"], row["number"], (row["generation"], row["offset"], row["index"])) for row in found]


def current_files(table: Path) -> list[str]:
    """Delta's log, replayed from its first version: none is missing."""
    logs = sorted(path for path in (table / "_delta_log").glob("*.json") if path.stem.isdigit())
    if [int(path.stem) for path in logs] != list(range(len(logs))):
        raise AssertionError(f"versions are missing: {[path.stem for path in logs]}")
    files: set[str] = set()
    for path in logs:
        for line in path.read_text().splitlines():
            action = json.loads(line)
            if added := action.get("add"):
                if added.get("deletionVector"):
                    raise AssertionError(f"{path}: a deletion vector, which is not read here")
                files.add(unquote(added["path"]))
            elif removed := action.get("remove"):
                files.discard(unquote(removed["path"]))
    return sorted(files)


def problems_meanwhile(rows: Iterable[Row]) -> list[str]:
    """What does not hold of bronze at some moment; empty if all does."""
    found = [f"twice: {item} number {number}" for (item, number), count in _counted(rows).items() if count > 1]
    for item, numbers in _by_item(rows).items():
        producer, _, remainder = item.rpartition("-")
        expected = set(range(int(remainder), max(numbers) + 1, KEYS))
        found += [f"missing, although newer ones are there: {item} number {number}" for number in sorted(expected - numbers)]
        found += [f"never put: {item} number {number} of {producer}" for number in sorted(numbers - expected)]
    return found


def problems(rows: Iterable[Row], acknowledged: set[tuple[str, int]], silver: list[dict[str, Any]], gold: Any) -> list[str]:
    """What does not hold in the end. ``acknowledged`` are (producer, number); ``silver`` the visible rows; ``gold`` the one
    row (n, total)."""
    rows = list(rows)
    there = {(row.item.rpartition("-")[0], row.number) for row in rows}
    found = problems_meanwhile(rows)
    found += [f"lost: {producer} number {number}" for producer, number in sorted(acknowledged - there)]
    found += [f"there and not acknowledged: {producer} number {number}" for producer, number in sorted(there - acknowledged)]
    newest: dict[str, int] = {}
    for row in sorted(rows, key=lambda one: one.order):
        if row.number < newest.get(row.item, -1):
            found.append(f"out of order: {row.item} number {row.number} at {row.order}, after {newest[row.item]}")
        newest[row.item] = row.number
    expected: dict[str, int] = {}
    for producer, number in acknowledged:
        item = f"{producer}-{number % KEYS}"
        expected[item] = max(number, expected.get(item, -1))
    left = {item: number for item, number in expected.items() if number % DELETED_EVERY}
    merged = Counter((row["item"], row["number"]) for row in silver)
    found += [f"silver lacks {one}, or has another" for one in sorted((Counter(left.items()) - merged).elements())]
    found += [f"silver has {one}, which it should not" for one in sorted((merged - Counter(left.items())).elements())]
    if gold != [len(left), sum(left.values())]:
        found.append(f"gold counts {gold}, not {[len(left), sum(left.values())]}")
    return found


def _counted(rows: Iterable[Row]) -> Counter[tuple[str, int]]:
    return Counter((row.item, row.number) for row in rows)


def _by_item(rows: Iterable[Row]) -> dict[str, set[int]]:
    out: dict[str, set[int]] = defaultdict(set)
    for row in rows:
        out[row.item].add(row.number)
    return out
