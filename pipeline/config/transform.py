"""``transform:`` of a silver table: what happens to rows on their way from bronze. Pure values; jobs/transform compiles them."""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator, model_validator

KINDS = ("select", "rename", "cast", "filter", "columns", "flatten", "join", "python")
_FUNCTION = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*")


def _list(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


def _same_names(value: Any) -> Any:
    """``by: carrier`` and ``by: [origin, time_hour]`` stand for the same name on both sides."""
    value = _list(value)
    return {name: name for name in value} if isinstance(value, list) else value


class Step(BaseModel):
    """One entry of ``transform:``. It has exactly one kind."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field("", max_length=100, description="in reasons; default: the step in words")
    select: list[str] | None = Field(None, min_length=1)
    rename: dict[str, str] | None = Field(None, min_length=1, description="old name: new name")
    cast: dict[str, str] | None = Field(None, min_length=1, description="column: type in Spark's SQL")
    filter: str | None = Field(None, min_length=1, description="an SQL condition: other rows are left out, deletes are not")
    columns: dict[str, str] | None = Field(None, min_length=1, description="column: SQL expression")
    flatten: Annotated[list[str] | None, BeforeValidator(_list)] = Field(None, min_length=1, description="structs")
    join: str | None = Field(None, min_length=1, description="a name of references:, or a table")
    by: Annotated[dict[str, str] | None, BeforeValidator(_same_names)] = Field(None, min_length=1, description="ours: theirs")
    take: Annotated[list[str] | None, BeforeValidator(_list)] = Field(None, min_length=1, description="of theirs; default all")
    python: str | None = Field(None, description="module:function, from a DataFrame to a DataFrame")

    @model_validator(mode="after")
    def _one_kind(self) -> Step:
        given = [name for name in KINDS if getattr(self, name) is not None]
        if len(given) != 1:
            found = f"there are {' and '.join(given)}" if given else "there is none"
            raise ValueError(f"expected exactly one of {', '.join(KINDS)}; {found}")
        if (given == ["join"]) != (self.by is not None):
            raise ValueError("join and by go together: join: NAME, by: COLUMN")
        if self.take is not None and self.join is None:
            raise ValueError("take goes with join: the columns to take from it")
        return self

    @field_validator("python")
    @classmethod
    def _function(cls, value: str | None) -> str | None:
        if value is not None and not _FUNCTION.fullmatch(value):
            raise ValueError("expected module:function, such as shop.cleaning:trim")
        return value

    @property
    def kind(self) -> str:
        return next(name for name in KINDS if getattr(self, name) is not None)

    @property
    def title(self) -> str:
        """Its name: the given one, or the step in words."""
        if self.name:
            return self.name
        value = getattr(self, self.kind)
        shown = value if isinstance(value, str) else ", ".join(value)
        return f"{self.kind} {' '.join(shown.split())}"[:100]


def check_steps(layer: str, steps: list[Step]) -> None:
    """What a table of a layer takes. Raises ValueError with the reason."""
    if not steps:
        return
    if layer != "silver":
        raise ValueError("transforms stand between bronze and silver: put them on a silver table")
    titles = [step.title for step in steps]
    if twice := sorted({title for title in titles if titles.count(title) > 1}):
        raise ValueError(f"two steps are named {twice[0]!r}: give one of them another name:")
