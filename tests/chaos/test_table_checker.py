"""The checker of tables can fail: each demand, broken once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

ACKNOWLEDGED = {("p", 1), ("p", 26), ("p", 2), ("p", 27), ("p", 3), ("p", 28)}
SILVER = [{"item": "p-1", "number": 26}, {"item": "p-2", "number": 27}]  # 28 is a multiple of 7: deleted
GOLD = [2, 53]


def rows(checker: Any, *numbers: int) -> list[Any]:
    return [checker.Row(f"p-{number % 25}", number, (0, at, 0)) for at, number in enumerate(numbers)]


def test_it_is_content_when_every_record_is_there_once_in_order_and_the_newest_is_merged(table_checker: Any) -> None:
    assert table_checker.problems(rows(table_checker, 1, 2, 3, 26, 27, 28), ACKNOWLEDGED, SILVER, GOLD) == []


@pytest.mark.parametrize(
    ("numbers", "silver", "gold", "said"),
    [
        ((1, 2, 3, 26, 27), SILVER, GOLD, "lost: p number 28"),
        ((1, 2, 3, 26, 27, 28, 3), SILVER, GOLD, "twice: p-3 number 3"),
        ((1, 2, 26, 27, 28), SILVER, GOLD, "missing, although newer ones are there: p-3 number 3"),
        ((1, 2, 3, 26, 27, 28, 51), SILVER, GOLD, "there and not acknowledged: p number 51"),
        ((1, 2, 28, 26, 27, 3), SILVER, GOLD, "out of order: p-3 number 3"),
        ((1, 2, 3, 26, 27, 28), SILVER[:1], GOLD, "silver lacks ('p-2', 27)"),
        ((1, 2, 3, 26, 27, 28), [*SILVER, SILVER[0]], GOLD, "silver has ('p-1', 26)"),
        ((1, 2, 3, 26, 27, 28), [*SILVER, {"item": "p-3", "number": 28}], GOLD, "silver has ('p-3', 28)"),
        ((1, 2, 3, 26, 27, 28), SILVER, [3, 81], "gold counts [3, 81]"),
    ],
)
def test_it_finds_what_is_lost_twice_out_of_order_or_merged_wrong(
    table_checker: Any, numbers: tuple[int, ...], silver: list[dict[str, Any]], gold: list[int], said: str
) -> None:
    found = table_checker.problems(rows(table_checker, *numbers), ACKNOWLEDGED, silver, gold)
    assert any(one.startswith(said) for one in found), found


def test_it_reads_the_files_that_the_log_says_are_current_and_no_others(table_checker: Any, tmp_path: Path) -> None:
    log = tmp_path / "_delta_log"
    log.mkdir()
    for name, number in (("a", 1), ("b", 2), ("c d", 3), ("left by a crash", 4)):
        order = {"generation": 1, "offset": number, "index": 0}
        row = {"item": f"p-{number}", "number": number, "_rejected": None, "_meta": {"order": order}}
        schema = pa.Table.from_pylist([row]).schema
        reason = pa.field("_rejected", pa.struct([("reason", pa.string())]))
        pq.write_table(
            pa.Table.from_pylist([row], pa.schema([reason if one.name == "_rejected" else one for one in schema])),
            tmp_path / f"{name}.parquet",
        )
    versions: list[list[dict[str, Any]]] = [
        [{"metaData": {}}],
        [{"add": {"path": "a.parquet"}}, {"add": {"path": "b.parquet"}}],
        [{"remove": {"path": "a.parquet"}}, {"add": {"path": "c%20d.parquet"}}],
    ]
    for version, actions in enumerate(versions):
        (log / f"{version:020d}.json").write_text("".join(json.dumps(action) + "\n" for action in actions))
    assert [(row.number, row.order) for row in table_checker.read_bronze(tmp_path)] == [(2, (1, 2, 0)), (3, (1, 3, 0))]
    (log / f"{1:020d}.json").unlink()
    with pytest.raises(AssertionError, match="versions are missing"):
        table_checker.read_bronze(tmp_path)
