"""``expect:`` of a table: rules that its rows, or a whole micro-batch, should hold. Pure values; jobs/quality compiles them.

A rule has exactly one check. Row checks tell good rows from bad ones; micro-batch checks look at all rows of one together, so
they can only warn or stop.
"""

from __future__ import annotations

import re
from datetime import date, datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator, model_validator

OnFail = Literal["warn", "drop", "quarantine", "stop"]
Bound = Annotated[int | float | str | datetime | date | None, Field(union_mode="left_to_right")]
RULES_MAX = 100
"""Rules of a table: each is a metric's label, and a row of quality.results per micro-batch."""

_ROW_CHECKS = ("rule", "complete", "unique", "values", "matches", "between", "references")
_MICRO_BATCH_CHECKS = ("complete", "exists", "type", "fresh_within", "rows", "mean", "stddev", "sql")
CHECKS = tuple(dict.fromkeys(_ROW_CHECKS + _MICRO_BATCH_CHECKS))
_WITHOUT_COLUMN = ("rule", "rows", "sql")
_SEVERAL_COLUMNS = ("unique", "references")
_DURATION = re.compile(r"([1-9][0-9]*)(s|m|h|d)")
_REFERENCE = re.compile(r"((?:bronze|silver|gold|reference)\.[A-Za-z]\w*)(?:\.(\w+)|\((\w+(?:\s*,\s*\w+)*)\))?")


def _list(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


class Rule(BaseModel):
    """One entry of ``expect:``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field("", max_length=100, description="in results, metrics and reasons; default: the check in words")
    on_fail: OnFail = "warn"
    column: Annotated[list[str], BeforeValidator(_list)] = Field(default_factory=list)
    rule: str | None = Field(None, min_length=1, description="an SQL condition over a row; unknown (null) is no failure")
    complete: bool | Annotated[float, Field(gt=0, le=1)] | None = Field(None, description="true: no nulls; 0.95: that part")
    unique: str | None = Field(None, description="no other row of so long before (by ingestion) has the same: 1h")
    values: list[str | int | float | bool] | None = Field(None, min_length=1, max_length=10_000)
    matches: str | None = Field(None, min_length=1, description="a Java regular expression for the whole text")
    between: tuple[Bound, Bound] | None = Field(None, description="both ends included; null is open")
    references: str | None = Field(None, description="reference.airlines.carrier or silver.weather(origin, time_hour)")
    exists: Literal[True] | None = None
    type: str | None = Field(None, min_length=1, description="the column's type in Spark's SQL")
    fresh_within: str | None = Field(None, description="newest value at most so long before ingestion: 2h")
    rows: tuple[int | None, int | None] | None = None
    mean: tuple[float | None, float | None] | None = None
    stddev: tuple[float | None, float | None] | None = None
    sql: str | None = Field(None, min_length=1, description="a query over `rows` that gives true or false")

    @model_validator(mode="after")
    def _one_check(self) -> Rule:
        given = [name for name in CHECKS if getattr(self, name) is not None]
        if len(given) != 1:
            found = f"there are {' and '.join(given)}" if given else "there is none"
            raise ValueError(f"expected exactly one of {', '.join(CHECKS)}; {found}")
        check = given[0]
        if check in _WITHOUT_COLUMN and self.column:
            raise ValueError(f"{check} goes without column: the SQL names its own" if check != "rows" else "rows counts all rows")
        if check not in _WITHOUT_COLUMN and not self.column:
            raise ValueError(f"{check} needs column: the name of the column to look at")
        if check not in _SEVERAL_COLUMNS and len(self.column) > 1:
            raise ValueError(f"{check} looks at one column, not {len(self.column)}: write a rule for each")
        if self.complete is False:
            raise ValueError("complete: expected true, or the part that has to be there, such as 0.95")
        if not self.is_row_rule and self.on_fail in ("drop", "quarantine"):
            raise ValueError(
                f"on_fail: {self.on_fail} is for rules that tell rows apart; {check} looks at a whole micro-batch: expected "
                "warn or stop"
            )
        return self

    @field_validator("between", "rows", "mean", "stddev")
    @classmethod
    def _bounded(cls, value: tuple[Any, Any] | None) -> tuple[Any, Any] | None:
        if value is None:
            return value
        low, high = value
        if low is None and high is None:
            raise ValueError("expected at least one bound, such as [0, null]")
        if low is not None and high is not None:
            if isinstance(low, str) != isinstance(high, str):
                raise ValueError("expected two bounds of one kind")
            if low > high:
                raise ValueError(f"no value is between {low} and {high}: the rule would always fail; the lower bound goes first")
        return value

    @field_validator("unique", "fresh_within")
    @classmethod
    def _duration(cls, value: str | None) -> str | None:
        if value is not None and not _DURATION.fullmatch(value):
            raise ValueError("expected a time such as 30m or 1h (a number and s, m, h or d)")
        return value

    @field_validator("references")
    @classmethod
    def _reference(cls, value: str | None) -> str | None:
        if value is not None and not _REFERENCE.fullmatch(value):
            raise ValueError("expected reference.NAME.COLUMN, silver.TABLE.COLUMN, or silver.TABLE(COLUMN, COLUMN)")
        return value

    @property
    def check(self) -> str:
        """Which check it is."""
        return next(name for name in CHECKS if getattr(self, name) is not None)

    @property
    def is_row_rule(self) -> bool:
        """Whether it tells good rows from bad ones; else it judges a micro-batch as a whole."""
        return self.check in _ROW_CHECKS and (self.check != "complete" or self.complete is True)

    @property
    def title(self) -> str:
        """Its name: the given one, or the check in words."""
        if self.name:
            return self.name
        value = getattr(self, self.check)
        if self.check in ("rule", "sql"):
            return " ".join(str(value).split())[:100]
        columns = ", ".join(self.column)
        if value is True:
            return f"{columns} {self.check}"
        if isinstance(value, tuple):
            shown = " and ".join("any" if bound is None else str(bound) for bound in value)
        else:
            shown = ", ".join(str(one) for one in value) if isinstance(value, list) else str(value)
        return " ".join(part for part in (columns, self.check, shown) if part)[:100]

    @property
    def seconds(self) -> int:
        """What ``unique`` or ``fresh_within`` says, in seconds."""
        match = _DURATION.fullmatch(self.unique or self.fresh_within or "")
        if match is None:
            raise ValueError(f"{self.title} has no duration")
        return int(match[1]) * {"s": 1, "m": 60, "h": 3_600, "d": 86_400}[match[2]]

    @property
    def referenced(self) -> tuple[str, list[str]]:
        """The table that ``references`` names, and its columns: by default those that ``column`` names."""
        match = _REFERENCE.fullmatch(self.references or "")
        if match is None:
            raise ValueError(f"{self.title} references nothing")
        columns = [match[2]] if match[2] else [part.strip() for part in (match[3] or "").split(",") if part.strip()]
        return match[1], columns or list(self.column)


def check_rules(layer: str, rules: list[Rule]) -> None:
    """What a table of a layer takes. Raises ValueError with the reason."""
    if not rules:
        return
    if layer == "gold":
        raise ValueError("gold tables take no rules: put them on the silver tables that this one is made from")
    if len(rules) > RULES_MAX:
        raise ValueError(f"{len(rules)} rules; a table takes at most {RULES_MAX}")
    seen: set[str] = set()
    for rule in rules:
        if rule.title in seen:
            raise ValueError(f"two rules are named {rule.title!r}: give one of them another name:")
        seen.add(rule.title)
        if rule.check == "references" and len(rule.column) != len(rule.referenced[1]):
            raise ValueError(f"rule {rule.title!r} compares {len(rule.column)} columns with {len(rule.referenced[1])}")
        if layer == "bronze" and rule.on_fail in ("drop", "quarantine"):
            raise ValueError(
                f"rule {rule.title!r}: bronze keeps every record, so its rules can warn or stop; put on_fail: {rule.on_fail} on "
                "the silver table that is made from it"
            )
