"""Small files beside tables, and the versions of a Delta log."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pyspark.sql import SparkSession

from jobs import storage
from jobs.commits import FORMAT, newest_commit_of_ours, newest_version
from pipeline.errors import TableError


def commit(table: Path, version: int, metadata: object = None) -> Path:
    """A log file of a version, with our metadata or with somebody else's commit."""
    (table / "_delta_log").mkdir(parents=True, exist_ok=True)
    info = {"operation": "WRITE", "userMetadata": json.dumps(metadata) if metadata else None}
    file = table / "_delta_log" / f"{version:020d}.json"
    file.write_text(json.dumps({"commitInfo": info}))
    return file


def ours(micro_batch: int) -> dict[str, int]:
    return {"headrace": FORMAT, "micro_batch": micro_batch}


def test_names_are_those_of_the_files_whatever_is_in_them(spark: SparkSession, tmp_path: Path) -> None:
    folder = tmp_path / "a, b"
    folder.mkdir()
    there = ["file with spaces", "with, comma", "{braces}", "50%25 = x", ".hidden", "ü"]
    for name in there:
        (folder / name).touch()
    assert storage.names(spark, str(folder)) == storage.names(spark, f"{folder}/") == sorted(there)
    (folder / "ü").unlink()
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "only").touch()
    assert storage.names(spark, str(tmp_path / "one")) == ["only"]


@pytest.mark.parametrize("over", [-1, 0, 1])
@pytest.mark.parametrize("pieces", [0, 1, 2, storage.PIECES_MAX, 2 * storage.PIECES_MAX])
def test_a_file_is_read_as_it_is_whatever_its_size(spark: SparkSession, tmp_path: Path, pieces: int, over: int) -> None:
    content = random.Random(7).randbytes(max(0, pieces * storage.PIECE_BYTES + over))
    (tmp_path / "file").write_bytes(content)
    assert storage.read_bytes(spark, str(tmp_path / "file")) == content


def test_a_folder_without_anything_in_it_has_no_names_and_no_entries(spark: SparkSession, tmp_path: Path) -> None:
    assert storage.names(spark, str(tmp_path)) == []
    assert not storage.has_entries(spark, str(tmp_path))
    assert not storage.has_entries(spark, str(tmp_path / "none"))
    (tmp_path / "folder").mkdir()
    assert storage.has_entries(spark, str(tmp_path))


def test_the_newest_version_is_found_from_one_that_is_known_without_a_look_at_the_rest(
    spark: SparkSession, tmp_path: Path
) -> None:
    assert newest_version(spark, str(tmp_path)) == -1
    for version in (3, 4, 5, 9):  # 9 is what a listing finds; a log has no holes
        commit(tmp_path, version)
    assert newest_version(spark, str(tmp_path)) == 9
    assert newest_version(spark, str(tmp_path), 3) == newest_version(spark, str(tmp_path), 5) == 5


def test_a_known_version_that_is_gone_has_the_log_listed(spark: SparkSession, tmp_path: Path) -> None:
    commit(tmp_path, 0)
    assert newest_version(spark, str(tmp_path), 7) == 0


def test_the_newest_commit_of_ours_is_found_behind_those_of_maintenance(spark: SparkSession, tmp_path: Path) -> None:
    for version, metadata in enumerate([None, ours(0), None, ours(1), None, None]):
        commit(tmp_path, version, metadata)
    for after in (None, -1, 0, 2):
        found = newest_commit_of_ours(spark, str(tmp_path), after=after)
        assert found is not None
        assert (found.version, found.metadata) == (3, ours(1))


def test_without_a_later_commit_of_ours_the_earlier_one_is_found_and_its_loss_is_said(
    spark: SparkSession, tmp_path: Path
) -> None:
    for version in (2, 3, 4):
        commit(tmp_path, version, ours(7) if version == 2 else None)
    found = newest_commit_of_ours(spark, str(tmp_path), after=3)
    assert found is not None
    assert found.version == 2
    commit(tmp_path, 2)
    with pytest.raises(TableError, match="no longer has the commit"):
        newest_commit_of_ours(spark, str(tmp_path), after=3)


def test_commits_on_a_local_disk_start_no_process_for_each_of_their_files(
    lake: Callable[..., Any], links_looked_up: Path
) -> None:
    shop = lake(shards=1)
    shop.put(("apple", 1))
    before = links_looked_up.read_text()
    shop.run("bronze.orders", "silver.orders")
    assert shop.numbers("silver.orders") == [1]
    assert links_looked_up.read_text() == before
