"""The demo's source: 1,001,615 events of 336,776 real flights, in an order that never changes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fastavro
import pandas
import pytest

from connectors.nycflights import FlightEvents, Weather, export_references
from connectors.positions import PositionFile
from connectors.protocols import Source
from pipeline.errors import ConfigError

SCHEMAS = Path(__file__).parents[2] / "schemas"
HOUR_MS = 3_600_000


@pytest.fixture(scope="module")
def year() -> pandas.DataFrame:
    """All events of the year, one row an event, with its key and position."""
    chunks = FlightEvents().read(0)
    return pandas.concat(
        [
            pandas.DataFrame(list(chunk.values)).assign(
                key=list(chunk.keys), position=range(chunk.first_position, chunk.next_position)
            )
            for chunk in chunks
        ],
        ignore_index=True,
    )


def flights_by_status(year: pandas.DataFrame, column: str) -> pandas.DataFrame:
    """One row a flight, one column a status."""
    return year.pivot(index="flight_id", columns="status", values=column)


def events(source: Source, position: int = 0) -> Iterator[tuple[int, str, dict[str, Any]]]:
    for chunk in source.read(position):
        for index, (key, value) in enumerate(zip(chunk.keys, chunk.values, strict=True)):
            yield chunk.first_position + index, key, value


def test_a_year_has_the_known_number_of_events_of_each_kind(year: pandas.DataFrame) -> None:
    assert year["status"].value_counts().to_dict() == {
        "SCHEDULED": 336_776,
        "ARRIVED": 328_063,
        "DEPARTED": 328_521,
        "CANCELLED": 8_255,
    }
    assert year["position"].tolist() == list(range(1_001_615))


def test_events_are_in_time_order_and_each_flight_goes_through_its_states_in_order(year: pandas.DataFrame) -> None:
    assert year["event_time"].is_monotonic_increasing
    at = flights_by_status(year, "position")  # raises if a flight has a status twice: flight_id is unique
    assert len(at) == 336_776
    assert (at["SCHEDULED"] < at["DEPARTED"].fillna(at["CANCELLED"])).all()
    assert (at["DEPARTED"] < at["ARRIVED"])[at["ARRIVED"].notna()].all()
    assert (at["DEPARTED"].isna() == at["CANCELLED"].notna()).all()


def test_an_arrival_is_later_than_the_departure_by_more_than_the_time_in_the_air(year: pandas.DataFrame) -> None:
    # Local clocks and midnights must not bend time.
    times, air = flights_by_status(year, "event_time"), flights_by_status(year, "air_time")["ARRIVED"].astype("float")
    minutes = ((times["ARRIVED"] - times["DEPARTED"]) / 60_000).dropna()
    assert minutes.between(1, 24 * 60).all()
    assert (minutes[air.dropna().index] > air.dropna()).all()


def test_an_event_tells_only_what_is_known_when_it_happens(year: pandas.DataFrame) -> None:
    known = year[["dep_delay", "arr_delay", "air_time"]].notna().groupby(year["status"]).sum()
    assert known["dep_delay"].to_dict() == {"SCHEDULED": 0, "DEPARTED": 328_521, "ARRIVED": 328_063, "CANCELLED": 0}
    assert known["arr_delay"].to_dict() == {"SCHEDULED": 0, "DEPARTED": 0, "ARRIVED": 327_346, "CANCELLED": 0}
    assert known["air_time"].to_dict() == {"SCHEDULED": 0, "DEPARTED": 0, "ARRIVED": 327_346, "CANCELLED": 0}


def test_a_flight_is_scheduled_a_day_before_and_departs_by_its_delay(year: pandas.DataFrame) -> None:
    late_ms = year["event_time"] - year["scheduled_departure"]
    departed = year["status"] == "DEPARTED"
    assert (late_ms[year["status"] == "SCHEDULED"] == -24 * HOUR_MS).all()
    assert (late_ms[year["status"] == "CANCELLED"] == 0).all()
    assert (late_ms[departed] == year["dep_delay"][departed] * 60_000).all()
    assert (year["scheduled_departure"] - year["time_hour"]).between(0, HOUR_MS - 1).all()


def test_the_key_is_the_tail_number_and_the_flight_where_there_is_none(year: pandas.DataFrame) -> None:
    assert (year["key"] == year["tailnum"].fillna(year["flight_id"])).all()
    assert year["flight_id"][year["tailnum"].isna()].nunique() == 2_512


@pytest.mark.parametrize("source", [FlightEvents(500), Weather(500)], ids=["flights", "weather"])
def test_reading_from_a_position_gives_what_reading_from_the_start_gives_there(source: Source) -> None:
    whole = list(events(source))
    assert len(whole) == len(source)
    for position in (0, 1, len(whole) // 2, len(whole) - 1, len(whole)):
        assert list(events(source, position)) == whole[position:]
        small = [value for chunk in source.read(position, chunk_records_max=7) for value in chunk.values]
        assert small == [value for _, _, value in whole[position:]]


def test_the_same_flights_give_the_same_events_at_the_same_positions_when_made_again() -> None:
    assert list(events(FlightEvents(500))) == list(events(FlightEvents(500)))


@pytest.mark.parametrize(
    ("source", "schema"), [(FlightEvents(500), "flight_event.avsc"), (Weather(500), "weather.avsc")], ids=["flights", "weather"]
)
def test_every_value_fits_its_schema_and_names_every_field(source: Source, schema: str) -> None:
    parsed = fastavro.parse_schema(json.loads((SCHEMAS / schema).read_text()))
    names = {field["name"] for field in parsed["fields"]}
    for _, _, value in events(source):
        assert value.keys() == names
        fastavro.validation.validate(value, parsed, strict=True)


def test_a_year_of_weather_is_one_row_an_airport_and_hour() -> None:
    rows = list(events(Weather()))
    assert len(rows) == 26_115
    assert len({(value["origin"], value["time_hour"]) for _, _, value in rows}) == 26_115
    assert {key for _, key, _ in rows} == {"EWR", "JFK", "LGA"}


def test_weather_ends_with_the_last_hour_of_the_flights_asked_for() -> None:
    last_hour = max(value["time_hour"] for _, _, value in events(FlightEvents(2000)))
    readings = [(value["pressure"] is None, value["time_hour"]) for _, _, value in events(Weather(2000))]
    assert max(hour for _, hour in readings) == last_hour
    assert readings == sorted(readings)


def test_readings_without_a_pressure_come_after_all_others_at_the_same_positions_or_not_at_all() -> None:
    whole, in_time = list(events(Weather(2000))), list(events(Weather(2000, late=False)))
    assert [value["pressure"] is None for _, _, value in whole] == [False] * 208 + [True] * 3
    assert in_time == whole[:208]


@pytest.mark.parametrize("rows", [0, -5])
def test_fewer_than_one_flight_is_refused(rows: int) -> None:
    with pytest.raises(ConfigError, match="--rows"):
        FlightEvents(rows)


def test_references_are_written_with_their_types(tmp_path: Path) -> None:
    export_references(tmp_path)
    assert list(pandas.read_parquet(tmp_path / "airlines.parquet").columns) == ["carrier", "name"]
    planes = pandas.read_parquet(tmp_path / "planes.parquet")
    assert planes["year"].dropna().between(1950, 2013).all()
    assert len(planes) == 3_322


def test_a_position_is_minus_one_when_nothing_was_stored_and_survives_a_new_object(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "flights.json"
    assert PositionFile(path).load() == -1
    PositionFile(path).store(41)
    PositionFile(path).store(42)
    assert PositionFile(path).load() == 42
    assert [entry.name for entry in path.parent.iterdir()] == ["flights.json"]


@pytest.mark.parametrize("text", ["", "{}", "[1]", '{"position": "7"}', '{"position": -2}', '{"position": true}'])
def test_a_damaged_position_is_refused_with_what_to_do(tmp_path: Path, text: str) -> None:
    path = tmp_path / "flights.json"
    path.write_text(text)
    with pytest.raises(ConfigError, match="delete it"):
        PositionFile(path).load()


def test_a_stored_position_stays_when_the_next_store_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "flights.json"
    PositionFile(path).store(41)
    monkeypatch.setattr("os.replace", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        PositionFile(path).store(42)
    assert PositionFile(path).load() == 41
    assert [entry.name for entry in tmp_path.iterdir()] == ["flights.json"]
