"""The demo's proof: every figure that was found against the one recomputed from the source data; equal, or it is named.

Pure: :class:`Found` holds what the tables and the topics were seen to hold (:mod:`jobs.demo.found` reads them), so an
altered table is as easy to test as a right one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from jobs.demo.expected import Expected

EXAMPLES_MAX = 3


@dataclass(frozen=True, slots=True)
class Difference:
    """One figure that is not what it must be; values are plain, fit for JSON."""

    name: str
    expected: Any
    found: Any


@dataclass(frozen=True, slots=True)
class Positions:
    """Which source positions a bronze table holds, and how many records stand after a later one of their key."""

    rows: int
    distinct: int
    first: int | None
    last: int | None
    out_of_order: int


@dataclass(frozen=True, slots=True)
class TopicContent:
    """What a stream's topics hold, seen by an independent reader: all valid records, and how many different ones."""

    records: int
    distinct: int

    @property
    def repeats(self) -> int:
        """Records that are there a second (or a third) time."""
        return self.records - self.distinct


@dataclass(frozen=True, slots=True)
class Found:
    """What is really there. Frames as in :class:`jobs.demo.expected.Expected`; mappings are keyed by table or by stream."""

    tables: Mapping[str, int]
    flights: pd.DataFrame
    weather: pd.DataFrame
    delays: pd.DataFrame
    carriers: pd.DataFrame
    plane_days: pd.DataFrame
    weather_hours: pd.DataFrame
    too_late: pd.DataFrame
    trusted: pd.DataFrame
    held: pd.DataFrame
    rules: Mapping[str, int]  # as quality.results has them
    diff: Mapping[str, int]  # of silver.weather, before and after the late readings were put: added, removed, changed
    optimized: Sequence[str]  # the tables whose history has an OPTIMIZE
    acknowledged: Mapping[str, int]  # different records acknowledged to the producers
    positions: Mapping[str, Positions]
    topics: Mapping[str, TopicContent]
    repeats_dropped: Mapping[str, int]  # as the bronze jobs counted them


def statuses(flights: pd.DataFrame) -> dict[str, int]:
    """Flights per status."""
    return {str(status): int(count) for status, count in flights["status"].value_counts().items()}


def delays_per_origin(flights: pd.DataFrame) -> dict[str, dict[str, int]]:
    """Count and sum of the departure delays per origin, of one row a flight."""
    return {
        str(origin): {"count": int(delays.count()), "sum": int(delays.sum())}
        for origin, delays in flights.groupby("origin")["dep_delay"]
    }


def prove(expected: Expected, found: Found, *, killed: bool = True) -> list[Difference]:
    """All differences; none means proven. ``killed``: a producer of flights was killed, so there must be repeats."""
    return [
        *_values("rows in {}", expected.tables, found.tables),
        *_values("flights with status {}", expected.statuses, statuses(found.flights)),
        *_values("departure delays of {} in silver.flights", expected.origins, delays_per_origin(found.flights)),
        *_values("departure delays of {} in gold.delays", expected.origins, _delays_in_gold(found.delays)),
        *compare_rows("silver.flights", expected.flights, found.flights, ["flight_id"]),
        *compare_rows("silver.weather", expected.weather, found.weather, ["origin", "time_hour"]),
        *compare_rows("gold.delays", expected.delays, found.delays, ["origin", "time_hour"]),
        *compare_rows("gold.carriers", expected.carriers, found.carriers, ["carrier"]),
        *compare_rows("gold.plane_days", expected.plane_days, found.plane_days, ["tailnum", "day_start"]),
        *compare_rows("gold.weather_hours", expected.weather_hours, found.weather_hours, ["window_start"]),
        *compare_rows("gold.weather_hours__late", expected.too_late, found.too_late, ["origin", "time_hour"]),
        *compare_rows("silver.trusted_weather", expected.trusted, found.trusted, ["origin", "time_hour"]),
        *compare_rows("silver.trusted_weather__quarantine", expected.held, found.held, ["origin", "time_hour"]),
        *_values("records that failed {}", expected.rules, found.rules),
        *_values("late readings {} in silver.weather", {"added": expected.put_late, "removed": 0, "changed": 0}, found.diff),
        *_nothing_lost("flights", expected.events, found),
        *_nothing_lost("weather", len(expected.weather), found),
        *_repeats(found, killed=killed),
        *([] if found.optimized else [Difference("tables that were optimized beside the jobs", "at least 1", 0)]),
    ]


def compare_rows(name: str, expected: pd.DataFrame, found: pd.DataFrame, keys: list[str]) -> Iterator[Difference]:
    """Row by row and column by column, in any order of rows; a null equals a null, floats must be equal to the last bit."""
    lacking = sorted(set(expected.columns) - set(found.columns))
    if lacking:
        yield Difference(f"{name}: columns", sorted(expected.columns), sorted(found.columns))
        return
    wanted, seen = _comparable(expected, keys), _comparable(found[list(expected.columns)], keys)
    if seen.index.has_duplicates:
        twice = seen.index[seen.index.duplicated()]
        yield Difference(f"{name}: rows with a key that is there already", 0, f"{len(twice):,}, such as {_key(twice[0])}")
        return
    yield from _rows(f"{name}: rows missing", wanted.index.difference(seen.index))
    yield from _rows(f"{name}: rows that should not be there", seen.index.difference(wanted.index))
    common = wanted.index.intersection(seen.index)
    wanted, seen = wanted.loc[common], seen.loc[common]
    for column in wanted.columns:
        left, right = wanted[column], seen[column]
        differs = ~((left == right) | (left.isna() & right.isna()))
        for key in common[differs][:EXAMPLES_MAX]:
            yield Difference(f"{name}: {column} of {_key(key)}", _plain(left[key]), _plain(right[key]))
        if differs.sum() > EXAMPLES_MAX:
            yield Difference(f"{name}: rows whose {column} differs", 0, int(differs.sum()))


def _values(name: str, expected: Mapping[str, Any], found: Mapping[str, Any]) -> Iterator[Difference]:
    for key in sorted(expected.keys() | found.keys()):
        if expected.get(key) != found.get(key):
            yield Difference(name.format(key), expected.get(key), found.get(key))


def _nothing_lost(stream: str, count: int, found: Found) -> Iterator[Difference]:
    seen, topic = found.positions[stream], found.topics[stream]
    figures = {
        f"{stream}: records acknowledged": (count, found.acknowledged[stream]),
        f"{stream}: different records in the topic": (count, topic.distinct),
        f"bronze.{stream}: different positions": (count, seen.distinct),
        f"bronze.{stream}: positions that are there twice": (0, seen.rows - seen.distinct),
        f"bronze.{stream}: first and last position": ([0, count - 1], [seen.first, seen.last]),
        f"bronze.{stream}: records that stand after a later one of their key": (0, seen.out_of_order),
    }
    return (Difference(name, *pair) for name, pair in figures.items() if pair[0] != pair[1])


def _repeats(found: Found, *, killed: bool) -> Iterator[Difference]:
    for stream, topic in found.topics.items():
        if topic.repeats != found.repeats_dropped[stream]:
            yield Difference(f"{stream}: repeats dropped (expected: in the topic)", topic.repeats, found.repeats_dropped[stream])
    if killed and not found.topics["flights"].repeats:
        yield Difference("flights: repeats after the kill", "at least 1", 0)


def _delays_in_gold(delays: pd.DataFrame) -> dict[str, dict[str, int]]:
    sums = delays.groupby("origin")[["departed", "dep_delay_sum"]].sum()
    return {str(origin): {"count": int(of["departed"]), "sum": int(of["dep_delay_sum"])} for origin, of in sums.iterrows()}


def _comparable(frame: pd.DataFrame, keys: list[str]) -> pd.DataFrame:
    """Indexed by key, with numbers as float64 (exact: no figure comes near 2**53) and times to the millisecond."""
    frame = frame.copy()
    for column in frame:
        if pd.api.types.is_datetime64_any_dtype(frame[column]):
            instants = frame[column] if frame[column].dt.tz is None else frame[column].dt.tz_convert("UTC").dt.tz_localize(None)
            frame[column] = instants.astype("datetime64[ms]")
        elif pd.api.types.is_numeric_dtype(frame[column]):
            frame[column] = frame[column].astype("float64")
    return frame.set_index(keys).sort_index()


def _rows(name: str, keys: pd.Index) -> Iterator[Difference]:
    if len(keys):
        yield Difference(name, 0, f"{len(keys):,}, such as {_key(keys[0])}")


def _key(key: Any) -> str:
    return " ".join(str(part) for part in key) if isinstance(key, tuple) else str(key)


def _plain(value: Any) -> Any:
    if pd.isna(value):
        return None
    if isinstance(value, pd.Timestamp):
        return value.isoformat()
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value.item() if hasattr(value, "item") else value
