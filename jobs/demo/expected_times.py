"""The demo's windows, late readings and sessions, recomputed with pandas."""

from __future__ import annotations

import pandas as pd

HOUR, LATENESS, REST = pd.Timedelta("1h"), pd.Timedelta("6h"), pd.Timedelta("8h")


def is_put_late(weather: pd.DataFrame) -> pd.Series:
    """Readings without a pressure are put after all others were."""
    return weather["pressure"].isna()


def is_too_late(weather: pd.DataFrame) -> pd.Series:
    """Those of them whose hour was closed by then: it ended six hours before the newest reading began, or earlier."""
    in_time = weather.loc[~is_put_late(weather), "time_hour"]
    return is_put_late(weather) & (weather["time_hour"] + HOUR <= in_time.max() - LATENESS)


def weather_hours(weather: pd.DataFrame) -> pd.DataFrame:
    """As gold.weather_hours: an hour over the airports, of the readings that were in time."""
    counted = weather[~is_too_late(weather)].assign(rainy=lambda rows: rows["precip"] > 0)
    hours = counted.groupby("time_hour").agg(
        airports=("origin", "size"),
        temp_max=("temp", "max"),
        wind_speed_max=("wind_speed", "max"),
        airports_with_rain=("rainy", "sum"),
    )
    hours = hours.reset_index().rename(columns={"time_hour": "window_start"})
    return hours.assign(window_end=hours["window_start"] + HOUR)


def plane_days(flights: pd.DataFrame) -> pd.DataFrame:
    """As gold.plane_days: a plane's flights between two rests of more than eight hours, by scheduled departure."""
    flown = flights[flights["tailnum"].notna()]
    flown = flown.assign(at=flown["time_hour"] + pd.to_timedelta(flown["minute"], unit="min")).sort_values(["tailnum", "at"])
    rested = flown["at"] - flown.groupby("tailnum")["at"].shift() > REST
    days = flown.assign(day=rested.groupby(flown["tailnum"]).cumsum()).groupby(["tailnum", "day"])
    found = days.agg(
        day_start=("at", "min"),
        last=("at", "max"),
        flights=("flight", "size"),
        departed=("dep_delay", "count"),
        miles=("distance", "sum"),
        dep_delay_sum=("dep_delay", "sum"),
    ).reset_index()
    return found.assign(day_end=found["last"] + REST).drop(columns=["day", "last"])
