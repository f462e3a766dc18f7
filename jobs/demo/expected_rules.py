"""What the rules of the demo's tables must find, recomputed with pandas; knows headrace.yml's rules by their names only."""

from __future__ import annotations

import pandas as pd

DELAY_MINUTES = (-60, 600)
WIND_MAX_MPH = 150


def failures(flights: pd.DataFrame, weather: pd.DataFrame, airlines: pd.DataFrame) -> dict[str, int]:
    """How many records fail each rule: a flight is an event when scheduled, when departed or cancelled, and when arrived."""
    arrived = flights["arr_time"].notna().astype(int)
    events, delayed_events = 2 + arrived, flights["dep_time"].notna().astype(int) + arrived
    foreign = flights["tailnum"].notna() & ~flights["tailnum"].fillna("").str.fullmatch(r"N[0-9A-Z]+")
    odd_delay = flights["dep_delay"].notna() & ~flights["dep_delay"].between(*DELAY_MINUTES)
    counts = {
        "silver.flights: the plane is known": events[flights["tailnum"].isna()].sum(),
        "silver.flights: tail numbers are American": events[foreign].sum(),
        "silver.flights: delays are below ten hours": delayed_events[odd_delay].sum(),
        "silver.flights: airlines are known": events[~flights["carrier"].isin(airlines["carrier"])].sum(),
        "silver.weather: pressure is known": weather["pressure"].isna().sum(),
        "silver.trusted_weather: wind was measured": weather["wind_speed"].isna().sum(),
        "silver.trusted_weather: no wind is faster than 150 mph": (weather["wind_speed"] > WIND_MAX_MPH).sum(),
        "silver.trusted_weather: the wind has a direction": weather["wind_dir"].isna().sum(),
    }
    return {rule: int(count) for rule, count in counts.items()}


def is_trusted(weather: pd.DataFrame) -> pd.Series:
    """Which readings no rule of silver.trusted_weather holds back."""
    return weather["wind_speed"].notna() & (weather["wind_speed"] <= WIND_MAX_MPH) & weather["wind_dir"].notna()
