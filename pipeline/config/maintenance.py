"""How tables are kept: what is removed from them and when (``maintenance:``, and ``keep:`` of a bronze table).

Pure values; jobs/maintain.py does it.
"""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator, model_validator

_DURATION = re.compile(r"([1-9][0-9]{0,6})([smhd])")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}

SAFE_FILES = timedelta(days=7)
"""Delta's own bound. A writer may work for as long before it commits its files, and VACUUM cannot tell them from rubbish."""
LOG_MIN = timedelta(days=30)
"""The log of bronze holds its positions: an idle table has to keep the newest ones for longer than any pause of its stream."""
EVERY_MIN = timedelta(minutes=1)


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


def _duration(value: Any) -> Any:
    if isinstance(value, timedelta):
        return value
    match = _DURATION.fullmatch(str(value).strip())
    if match is None:
        raise ValueError("expected a duration such as 90s, 15m, 12h or 30d")
    return timedelta(**{_UNITS[match[2]]: int(match[1])})


Duration = Annotated[timedelta, BeforeValidator(_duration)]


class Maintenance(_Strict):
    """How all tables are kept."""

    every: Duration | None = Field(None, description="how often `headrace run` does it; none: only `headrace maintain`")
    files: Duration = Field(SAFE_FILES, description="how long files that left a table can still be read, restored and diffed")
    log: Duration = Field(timedelta(days=400), description="how long a table's history is kept")

    @field_validator("every")
    @classmethod
    def _not_all_the_time(cls, value: timedelta | None) -> timedelta | None:
        if value is not None and value < EVERY_MIN:
            raise ValueError("expected 1m or more: every compaction writes files anew")
        return value

    @field_validator("files")
    @classmethod
    def _is_safe(cls, value: timedelta) -> timedelta:
        if value < SAFE_FILES:
            raise ValueError(
                "below the safe retention of 7d: VACUUM would remove files that running writers have not committed yet, and "
                "those that slow readers are about to read"
            )
        return value

    @model_validator(mode="after")
    def _log_outlasts_files(self) -> Maintenance:
        if self.log < max(LOG_MIN, self.files):
            raise ValueError("log: expected 30d or more, and no less than files: a version is read by both")
        return self


class Keep(_Strict):
    """How long a bronze table keeps its rows, by the time they were read from Kafka (``_meta.ingested_at``)."""

    rows: Duration | None = Field(None, description="older rows are deleted; default: none are")
    dead_letters: Duration | None = Field(None, description="the raw bytes of older rejected rows are deleted; default: none are")


def check_keep(layer: str, keep: Keep | None) -> None:
    """Raises ValueError where a table cannot have ``keep:``."""
    if keep is not None and layer != "bronze":
        raise ValueError(
            f"keep: only bronze tables have it: a row deleted from {layer} would come back with its next record or refresh"
        )
