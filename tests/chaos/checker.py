"""What the chaos test demands, told from the workers' logs alone. Shares no code with the product.

- each record that a producer was told is acknowledged was handled: none lost;
- a record handled more than once has the same dedup id each time;
- per key, first handlings happened in the order in which the numbers were put.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Handled:
    at_ns: int
    key: str
    number: int
    dedup_id: tuple[str, int]


def read_handled(folder: Path) -> list[Handled]:
    out = []
    for file in folder.glob("*.handled"):
        for line in file.read_text().split("\n")[:-1]:
            at, key, number, producer, seq = line.split(" ")
            out.append(Handled(int(at), key, int(number), (producer, int(seq))))
    return sorted(out, key=lambda one: one.at_ns)


def read_acknowledged(folder: Path) -> set[tuple[str, int]]:
    """(producer, number)."""
    out = set()
    for file in folder.glob("*.acknowledged"):
        out |= {(file.stem, int(line)) for line in file.read_text().split("\n")[:-1]}
    return out


def missing(folder: Path) -> set[tuple[str, int]]:
    """Acknowledged and not handled."""
    return read_acknowledged(folder) - {(one.key.rpartition("-")[0], one.number) for one in read_handled(folder)}


def problems(folder: Path) -> list[str]:
    """What does not hold; empty if all does."""
    found = [f"lost: {producer} number {number}" for producer, number in sorted(missing(folder))[:20]]
    ids: dict[tuple[str, int], tuple[str, int]] = {}
    newest: dict[str, int] = {}
    for one in read_handled(folder):
        record = one.key, one.number
        if record in ids:
            if ids[record] != one.dedup_id:
                found.append(f"another dedup id: {record} as {ids[record]} and {one.dedup_id}")
            continue
        ids[record] = one.dedup_id
        if one.number < newest.get(one.key, -1):
            found.append(f"out of order: {one.key} number {one.number} first handled after {newest[one.key]}")
        newest[one.key] = max(newest.get(one.key, -1), one.number)
    return found
