"""What maintenance notes beside a table, in ``<table>/_headrace``: Delta and its VACUUM leave such folders alone.

Not in table properties, since changing one makes every writer that is under way fail; not in the log alone, since it is cleaned.
"""

from __future__ import annotations

import json
from typing import Any

from pyspark.sql import SparkSession

from jobs.storage import names, read_text, remove, write_text

FOLDER = "_headrace"


def read_note(spark: SparkSession, table_path: str, kind: str) -> dict[str, Any] | None:
    """The newest note of a kind."""
    found = _numbers(spark, table_path, kind)
    text = read_text(spark, _file(table_path, kind, found[-1])) if found else None
    return None if text is None else json.loads(text)


def write_note(spark: SparkSession, table_path: str, kind: str, note: dict[str, Any]) -> None:
    """Replace the note of a kind. A crash on the way leaves the old one or the new one."""
    found = _numbers(spark, table_path, kind)
    write_text(spark, _file(table_path, kind, found[-1] + 1 if found else 1), json.dumps(note))
    for number in found:
        remove(spark, _file(table_path, kind, number))


def _numbers(spark: SparkSession, table_path: str, kind: str) -> list[int]:
    mine = (name for name in names(spark, f"{table_path}/{FOLDER}") if name.startswith(f"{kind}-") and name.endswith(".json"))
    return sorted(int(name[len(kind) + 1 : -5]) for name in mine)


def _file(table_path: str, kind: str, number: int) -> str:
    return f"{table_path}/{FOLDER}/{kind}-{number:08d}.json"
