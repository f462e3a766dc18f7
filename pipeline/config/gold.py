"""What a gold table may be: a query (SQL or Python), windows over one table, or a join of two streams of bronze rows.

Pure values; what needs the tables' columns is checked by jobs/golds before anything is written.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import timedelta
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer, field_validator, model_validator

_DURATION = re.compile(r"([0-9]+) (second|minute|hour|day)s?")
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,99}")
_FUNCTION = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")
WINDOWS_PER_ROW_MAX = 1_000
LATE_SUFFIX = "__late"


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)


def _duration(value: Any) -> Any:
    match = _DURATION.fullmatch(str(value).strip())
    if match is None:
        raise ValueError("expected a duration such as 30 seconds, 15 minutes, 1 hour or 7 days")
    return timedelta(**{f"{match[2]}s": int(match[1])})


def _text(value: timedelta) -> str:
    return f"{int(value.total_seconds())} seconds"


Duration = Annotated[timedelta, BeforeValidator(_duration), PlainSerializer(_text)]


def _checked_names(names: Sequence[str]) -> None:
    for name in names:
        if not _NAME.fullmatch(name):
            raise ValueError(f"{name!r} cannot be a column: expected letters, digits and _, a letter first")


class Window(_Strict):
    """Event-time windows: tumbling (``every``), sliding (``every`` and ``slide``) or sessions (``gap``).

    ``aggregate`` gives each column of the result its SQL aggregate. A window is final once the watermark (the newest event
    time seen, less ``watermark``) has passed its end; what comes for it later is kept in ``<table>__late``.
    """

    on: str = Field(description="column of the event time, a timestamp")
    every: Duration | None = Field(None, description="length of a window")
    slide: Duration | None = Field(None, description="from one window's start to the next one's; default: every")
    gap: Duration | None = Field(None, description="a session ends once nothing came for so long")
    watermark: Duration | None = Field(None, description="how much later than the newest row a row may come")
    group_by: list[str] = Field(default_factory=list)
    aggregate: dict[str, str] = Field(min_length=1, max_length=200)
    salted: bool | None = Field(None, description="aggregate by (key, salt) first; default: where the stream is salted")

    @model_validator(mode="after")
    def _is_one_kind(self) -> Window:
        if (self.every is None) == (self.gap is None):
            raise ValueError("give `every:` (tumbling; with `slide:` sliding) or `gap:` (sessions), one of the two")
        if self.watermark is None:
            raise ValueError("watermark: is missing: without one no window would ever be final")
        for name in ("every", "slide", "gap"):
            if getattr(self, name) == timedelta(0):
                raise ValueError(f"{name}: expected more than 0 seconds")
        if self.slide is not None:
            if self.every is None or self.slide > self.every:
                raise ValueError("slide: goes with `every:` and may not be longer: rows between the windows would be lost")
            if self.every / self.slide > WINDOWS_PER_ROW_MAX:
                raise ValueError(f"slide: a row would be in more than {WINDOWS_PER_ROW_MAX:,} windows: slide further")
        _checked_names(list(self.aggregate))
        taken = {"window_start", "window_end", *self.group_by}
        if clash := sorted(taken.intersection(self.aggregate)):
            raise ValueError(f"aggregate.{clash[0]}: the result has a column of this name already: choose another")
        return self

    @property
    def lateness(self) -> timedelta:
        """``watermark``, which is there once the configuration was checked."""
        return self.watermark or timedelta(0)


class StreamJoin(_Strict):
    """Rows of two bronze tables whose ``on`` columns are equal and whose event times are near each other.

    A right row fits a left one if its time is at least the left one's less ``before``, and at most the left one's plus
    ``after``. A row older than the watermark is kept in ``<table>__late`` and not joined.
    """

    on: list[str] = Field(min_length=1)
    times: dict[str, str] = Field(description="table: column of its event time; the first of `from` is left")
    before: Duration | None = None
    after: Duration | None = None
    watermark: Duration | None = None
    kind: Literal["inner", "left"] = "inner"
    select: dict[str, str] = Field(default_factory=dict, description="column: SQL over left.x and right.y; default: all columns")

    @model_validator(mode="after")
    def _is_bounded(self) -> StreamJoin:
        if self.before is None and self.after is None:
            raise ValueError("before: and after: are missing: without bounds in time a row would wait for its match for ever")
        if self.watermark is None:
            raise ValueError("watermark: is missing: without one nothing says when a row's matches are complete")
        _checked_names(list(self.select))
        return self

    @property
    def lateness(self) -> timedelta:
        """``watermark``, which is there once the configuration was checked."""
        return self.watermark or timedelta(0)


class GoldOptions(_Strict):
    """The options of a table that only gold has."""

    window: Window | None = None
    join: StreamJoin | None = None
    python: str | None = Field(None, description="module:function that makes the rows; the module lies beside headrace.yml")
    mode: Literal["refresh", "incremental"] | None = None
    keys: list[str] = Field(default_factory=list, description="incremental: columns of the result by which it is recomputed")

    @field_validator("python")
    @classmethod
    def _is_function(cls, value: str | None) -> str | None:
        if value is not None and not _FUNCTION.fullmatch(value):
            raise ValueError("expected module:function, such as marts:delays")
        return value


def check_gold(name: str, sources: Sequence[str], sql: object | None, options: GoldOptions) -> None:
    """That the options of a table go together. Raises ValueError with the option and the reason."""
    used = [
        option for option, value in (("sql", sql), ("python", options.python), ("window", options.window), ("join", options.join))
        if value is not None
    ]  # fmt: skip
    if not name.startswith("gold."):
        if foreign := [*(o for o in used if o != "sql"), *(["keys"] if options.keys else [])]:
            raise ValueError(f"{foreign[0]}: only gold tables have this")
        return
    if name.endswith(LATE_SUFFIX):
        raise ValueError(f"names that end with {LATE_SUFFIX} are taken for the late rows of gold tables: choose another")
    if not used:
        raise ValueError("a gold table needs sql: and the file of its query, or one of python, window and join")
    if len(used) > 1:
        raise ValueError(f"{used[0]} and {used[1]}: a gold table has one of sql, python, window and join")
    if (options.window or options.join) and (options.mode or options.keys):
        raise ValueError("mode and keys: only for sql and python; windows and joins follow their sources anyway")
    if options.mode == "incremental" and not options.keys:
        raise ValueError("keys: is missing: the columns of the result by which it is recomputed, such as those it is grouped by")
    if options.keys and options.mode != "incremental":
        raise ValueError("keys: goes with `mode: incremental`")
    if options.window is not None:
        _check_window(sources, options.window)
    if options.join is not None:
        _check_join(sources, options.join)


def _check_window(sources: Sequence[str], window: Window) -> None:
    if len(sources) != 1 or sources[0].startswith("gold."):
        raise ValueError("window: goes over one bronze or silver table")
    if window.gap is not None and not sources[0].startswith("bronze."):
        raise ValueError(
            f"window.gap: sessions are followed over bronze only, where rows stay as they are. Over {sources[0]}, use sql with "
            "session_window(…) and `mode: incremental`: whole keys are recomputed when a row changes"
        )


def _check_join(sources: Sequence[str], join: StreamJoin) -> None:
    if len(sources) != 2 or sources[0] == sources[1] or not all(one.startswith("bronze.") for one in sources):
        raise ValueError("join: goes over two different bronze tables. For silver use sql with `mode: incremental`")
    if set(join.times) != set(sources):
        raise ValueError(f"join.times: expected the event time's column of {sources[0]} and of {sources[1]}")
