"""``ordered:`` of a table: a Python function that sees each key's records in order, with state."""

from __future__ import annotations

import re

from pydantic import BaseModel, ConfigDict, Field, field_validator

_FUNCTION = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")


class Ordered(BaseModel):
    """How a function makes a table. ``state`` and ``output`` are columns as Spark writes them: ``visits long, last string``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    function: str | None = Field(None, description="module:function; none where a program of yours calls jobs.ordered.apply")
    state: str = Field(min_length=1, description="what is kept for each key between records")
    output: str = Field(min_length=1, description="columns of the table")

    @field_validator("function")
    @classmethod
    def _named(cls, value: str | None) -> str | None:
        if value is not None and not _FUNCTION.fullmatch(value):
            raise ValueError("expected module:function, such as visits:count")
        return value


def check_alone(layer: str, others: list[str]) -> None:
    """An ordered table is silver, and no other option says how it is made. Raises ValueError."""
    if layer != "silver":
        raise ValueError("ordered: only a silver table is made by a function")
    if others:
        raise ValueError(f"ordered: a function makes this table, so {', '.join(others)} has no place here")
