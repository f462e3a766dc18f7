"""`merge:` of headrace.yml: what is refused when it is loaded, with its line."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.config import load_config
from pipeline.errors import ConfigError

HEAD = "streams:\n  a: {schema: x.avsc}\n  salty: {schema: x.avsc, ordering: salted}\ntables:\n"
BRONZE = "  bronze.a: {from: a}\n  bronze.salty: {from: salty}\n"


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ("silver.a: {from: bronze.a}", "merge: a silver table needs merge"),
        ("silver.a: {from: bronze.a, merge: {sequence_by: at}}", "merge.keys: is missing"),
        ("silver.a: {from: bronze.a, merge: {keys: []}}", "at least 1 item"),
        ("silver.a: {from: bronze.a, merge: {keys: [id, id]}}", "id is given twice"),
        ("silver.a: {from: bronze.a, merge: {keys: [_meta]}}", "'_meta' is not a column of records"),
        ("silver.a: {from: bronze.a, merge: {keys: [id], scd: 3}}", "merge.scd: expected 1 or 2"),
        ("silver.a: {from: bronze.a, merge: {keys: [id], sequence_by: id}}", "sequence_by id is one of the keys"),
        ("silver.a: {from: bronze.a, merge: {keys: [valid_to], scd: 2}}", "valid_to is a column that scd: 2 makes"),
        ("silver.a: {from: bronze.a, merge: {keys: [id], ignore_nulls: true}}", "is not an option here"),
        ("silver.a: {from: [bronze.a, bronze.salty], merge: {keys: [id]}}", "made from one bronze table"),
        ("silver.a: {from: bronze.salty, merge: {keys: [id]}}", "sequence_by is missing: stream salty is salted"),
        ("gold.a: {from: bronze.a, sql: a.sql, merge: {keys: [id]}}", "merge: only silver tables merge"),
    ],
)
def test_a_merge_that_cannot_be_is_refused_on_load(tmp_path: Path, table: str, said: str) -> None:
    file = tmp_path / "headrace.yml"
    file.write_text(f"{HEAD}{BRONZE}  {table}\n")
    with pytest.raises(ConfigError) as raised:
        load_config(file)
    assert said in str(raised.value)
    assert str(raised.value).startswith(f"{file}:7: tables.{table.partition(':')[0]}")


def test_a_whole_merge_is_read(tmp_path: Path) -> None:
    file = tmp_path / "headrace.yml"
    merge = "merge: {keys: [id, at], sequence_by: version, delete_when: gone, scd: 2, ignore_null_updates: true}"
    file.write_text(f"{HEAD}{BRONZE}  silver.a: {{from: bronze.salty, {merge}}}\n")
    found = load_config(file).table("silver.a").merge
    assert found is not None
    assert (found.keys, found.sequence_by, found.delete_when) == (["id", "at"], "version", "gone")
    assert (found.scd, found.ignore_null_updates) == (2, True)
