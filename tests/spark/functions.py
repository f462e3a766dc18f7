"""Functions for ordered tables, in a module of their own: executors import it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any


def seen(key: str, record: Mapping[str, Any], state: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """What the function saw: the record's number, which of its key's records it was, and the number before it."""
    state["count"] = (state["count"] or 0) + 1
    yield {"item": key, "number": record["number"], "count": state["count"], "before": state["last"]}
    state["last"] = record["number"]


def seen_but_for_thirteen(key: str, record: Mapping[str, Any], state: dict[str, Any]) -> Iterator[dict[str, Any]]:
    if record["number"] == 13:
        raise ValueError(f"the content {record} is nobody's business")
    yield from seen(key, record, state)
