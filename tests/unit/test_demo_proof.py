"""The demo's proof names every figure that is not what the source data says, and nothing else."""

from __future__ import annotations

import ast
import dataclasses
import json
from pathlib import Path
from typing import Any

import pandas
import pytest

from jobs.demo import expected as expected_module
from jobs.demo import expected_rules, expected_times
from jobs.demo import proof as proof_module
from jobs.demo.expected import Expected, expect
from jobs.demo.proof import Difference, Found, Positions, TopicContent, compare_rows, prove

ROWS = 2000


@pytest.fixture(scope="module")
def wanted() -> Expected:
    return expect(ROWS)


@pytest.fixture
def right(wanted: Expected) -> Found:
    """What a demo without fault finds: 20 of its flight events are in the topic twice."""
    weather = len(wanted.weather)
    return Found(
        tables=wanted.tables,
        flights=wanted.flights.sample(frac=1, random_state=1),  # rows come in any order
        weather=wanted.weather.copy(),
        delays=wanted.delays.copy(),
        carriers=wanted.carriers.copy(),
        plane_days=wanted.plane_days.copy(),
        weather_hours=wanted.weather_hours.copy(),
        too_late=wanted.too_late.copy(),
        trusted=wanted.trusted.copy(),
        held=wanted.held.copy(),
        rules=dict(wanted.rules),
        diff={"added": wanted.put_late, "removed": 0, "changed": 0},
        optimized=["silver.flights"],
        acknowledged={"flights": wanted.events, "weather": weather},
        positions={
            "flights": Positions(wanted.events, wanted.events, 0, wanted.events - 1, 0),
            "weather": Positions(weather, weather, 0, weather - 1, 0),
        },
        topics={"flights": TopicContent(wanted.events + 20, wanted.events), "weather": TopicContent(weather, weather)},
        repeats_dropped={"flights": 20, "weather": 0},
    )


def names(differences: list[Difference]) -> list[str]:
    return [difference.name for difference in differences]


def test_the_whole_year_has_the_known_figures() -> None:
    year = expect(None)
    assert year.events == 1_001_615
    assert year.tables == {
        "bronze.flights": 1_001_615,
        "bronze.weather": 26_115,
        "silver.flights": 336_776,
        "silver.weather": 26_115,
        "gold.delays": 19_486,
        "silver.trusted_weather": 25_654,
        "gold.carriers": 16,
        "gold.plane_days": 269_300,
        "gold.weather_hours": 8_440,
    }
    assert year.rules == {
        "silver.flights: the plane is known": 5_024,
        "silver.flights: tail numbers are American": 12,
        "silver.flights: delays are below ten hours": 79,
        "silver.flights: airlines are known": 0,
        "silver.weather: pressure is known": 2_729,
        "silver.trusted_weather: wind was measured": 4,
        "silver.trusted_weather: no wind is faster than 150 mph": 1,
        "silver.trusted_weather: the wind has a direction": 460,
    }
    assert (year.put_late, len(year.too_late)) == (2_729, 2_729)
    assert year.statuses == {"ARRIVED": 328_063, "CANCELLED": 8_255, "DEPARTED": 458}
    assert year.origins == {
        "EWR": {"count": 117_596, "sum": 1_776_635},
        "JFK": {"count": 109_416, "sum": 1_325_264},
        "LGA": {"count": 101_509, "sum": 1_050_301},
    }


def test_a_right_run_is_proven(wanted: Expected, right: Found) -> None:
    assert prove(wanted, right) == []


@pytest.mark.parametrize(
    ("change", "name", "expected", "found"),
    [
        ({"acknowledged": {"flights": 5984, "weather": 211}}, "flights: records acknowledged", 5985, 5984),
        ({"acknowledged": {"flights": 5985, "weather": 210}}, "weather: records acknowledged", 211, 210),
        ({"diff": {"added": 3, "removed": 1, "changed": 0}}, "late readings removed in silver.weather", 0, 1),
        ({"optimized": []}, "tables that were optimized beside the jobs", "at least 1", 0),
        (
            {"topics": {"flights": TopicContent(6004, 5984), "weather": TopicContent(211, 211)}},
            "flights: different records in the topic",
            5985,
            5984,
        ),
        ({"repeats_dropped": {"flights": 19, "weather": 0}}, "flights: repeats dropped (expected: in the topic)", 20, 19),
        ({"repeats_dropped": {"flights": 20, "weather": 1}}, "weather: repeats dropped (expected: in the topic)", 0, 1),
    ],
)
def test_a_count_that_is_off_by_one_is_named(
    wanted: Expected, right: Found, change: dict[str, Any], name: str, expected: int, found: int
) -> None:
    assert prove(wanted, dataclasses.replace(right, **change)) == [Difference(name, expected, found)]


@pytest.mark.parametrize("table", ["bronze.flights", "bronze.weather", "silver.flights", "gold.carriers"])
def test_a_row_too_many_in_a_table_is_named(wanted: Expected, right: Found, table: str) -> None:
    tables = dict(right.tables) | {table: right.tables[table] + 1}
    assert prove(wanted, dataclasses.replace(right, tables=tables)) == [
        Difference(f"rows in {table}", right.tables[table], right.tables[table] + 1)
    ]


@pytest.mark.parametrize(
    ("seen", "name"),
    [
        (Positions(5985, 5984, 0, 5984, 0), "bronze.flights: different positions"),
        (Positions(5986, 5985, 0, 5984, 0), "bronze.flights: positions that are there twice"),
        (Positions(5985, 5985, 1, 5985, 0), "bronze.flights: first and last position"),
        (Positions(5985, 5985, 0, 5984, 1), "bronze.flights: records that stand after a later one of their key"),
    ],
)
def test_a_lost_a_repeated_and_a_disordered_record_are_named(wanted: Expected, right: Found, seen: Positions, name: str) -> None:
    found = dataclasses.replace(right, positions=dict(right.positions) | {"flights": seen})
    assert name in names(prove(wanted, found))


def test_a_kill_that_caused_no_repeats_proves_nothing(wanted: Expected, right: Found) -> None:
    topics = dict(right.topics) | {"flights": TopicContent(wanted.events, wanted.events)}
    found = dataclasses.replace(right, topics=topics, repeats_dropped={"flights": 0, "weather": 0})
    assert names(prove(wanted, found)) == ["flights: repeats after the kill"]
    assert prove(wanted, found, killed=False) == []


def test_a_flight_in_an_older_state_is_named_with_both_states(wanted: Expected, right: Found) -> None:
    flights = right.flights.copy()
    one = flights.index[flights["status"] == "ARRIVED"][0]
    flights.loc[one, "status"] = "DEPARTED"
    differences = prove(wanted, dataclasses.replace(right, flights=flights))
    arrived = wanted.statuses["ARRIVED"]
    assert Difference("flights with status ARRIVED", arrived, arrived - 1) in differences
    assert Difference(f"silver.flights: status of {flights.loc[one, 'flight_id']}", "ARRIVED", "DEPARTED") in differences


def test_a_delay_that_is_a_minute_off_is_named_in_silver_and_per_origin(wanted: Expected, right: Found) -> None:
    flights = right.flights.copy()
    one = flights.index[(flights["origin"] == "JFK") & flights["dep_delay"].notna()][0]
    flights.loc[one, "dep_delay"] += 1
    found = names(prove(wanted, dataclasses.replace(right, flights=flights)))
    assert found == [
        "departure delays of JFK in silver.flights",
        f"silver.flights: dep_delay of {flights.loc[one, 'flight_id']}",
    ]


@pytest.mark.parametrize(
    ("table", "column", "value"),
    [
        ("delays", "dep_delay_sum", 0),
        ("delays", "temp", -40.0),
        ("delays", "dep_delay_mean", 0.1),
        ("carriers", "name", "Nobody's Airline"),
        ("carriers", "plane_age_mean_years", 10.000000000000002),
        ("weather", "pressure", None),
        ("plane_days", "miles", 1),
        ("weather_hours", "airports", 4),
        ("trusted", "wind_speed", 151.0),
    ],
)
def test_one_altered_cell_is_named_with_its_row(wanted: Expected, right: Found, table: str, column: str, value: Any) -> None:
    altered = getattr(right, table).copy()
    altered.loc[altered.index[5], column] = value
    (difference,) = [one for one in prove(wanted, dataclasses.replace(right, **{table: altered})) if column in one.name]
    was = getattr(right, table)[column].iloc[5]
    assert (difference.expected, difference.found) == (was, value)


def test_a_rule_that_found_one_record_too_many_is_named(wanted: Expected, right: Found) -> None:
    rule = "silver.weather: pressure is known"
    found = dataclasses.replace(right, rules=dict(right.rules) | {rule: 4})
    assert prove(wanted, found) == [Difference(f"records that failed {rule}", 3, 4)]


@pytest.mark.parametrize(
    "table", ["flights", "weather", "delays", "carriers", "plane_days", "weather_hours", "too_late", "trusted", "held"]
)
def test_a_missing_and_an_invented_row_are_named(wanted: Expected, right: Found, table: str) -> None:
    frame = getattr(right, table)
    missing = dataclasses.replace(right, **{table: frame.iloc[1:]})
    assert any(name.endswith("rows missing") for name in names(prove(wanted, missing)))
    stranger = frame.iloc[[0]].assign(**{key: value for key, value in STRANGER.items() if key in frame})
    invented = dataclasses.replace(right, **{table: pandas.concat([frame, stranger])[list(frame.columns)]})
    assert any(name.endswith("rows that should not be there") for name in names(prove(wanted, invented)))
    twice = dataclasses.replace(right, **{table: pandas.concat([frame, frame.iloc[[0]]])})
    assert any(name.endswith("rows with a key that is there already") for name in names(prove(wanted, twice)))


STRANGER = {
    "flight_id": "none", "origin": "XXX", "carrier": "XX", "tailnum": "N0", "window_start": pandas.Timestamp("2012-01-01"),
}  # fmt: skip


def test_an_hours_sum_that_is_off_is_named_per_origin_too(wanted: Expected, right: Found) -> None:
    delays = right.delays.copy()
    one = delays.index[delays["origin"] == "LGA"][0]
    delays.loc[one, "dep_delay_sum"] += 1
    found = dataclasses.replace(right, delays=delays)
    of_lga = wanted.origins["LGA"]
    changed = {"count": of_lga["count"], "sum": of_lga["sum"] + 1}
    assert Difference("departure delays of LGA in gold.delays", of_lga, changed) in prove(wanted, found)


def test_many_altered_rows_are_counted_and_only_some_shown(wanted: Expected, right: Found) -> None:
    flights = right.flights.assign(arr_delay=99_999)
    found = list(compare_rows("silver.flights", wanted.flights, flights, ["flight_id"]))
    assert len(found) == 4
    assert found[-1] == Difference("silver.flights: rows whose arr_delay differs", 0, ROWS)


def test_a_missing_column_is_named_and_an_extra_one_is_not_the_proofs_affair(wanted: Expected) -> None:
    extra = wanted.carriers.assign(more=1)
    assert list(compare_rows("gold.carriers", wanted.carriers, extra, ["carrier"])) == []
    (difference,) = compare_rows("gold.carriers", wanted.carriers, wanted.carriers.drop(columns="name"), ["carrier"])
    assert difference.name == "gold.carriers: columns"


def test_times_are_compared_as_instants_whatever_zone_and_unit_they_come_in(wanted: Expected) -> None:
    zoned = wanted.delays.assign(time_hour=wanted.delays["time_hour"].dt.tz_localize("UTC").dt.tz_convert("America/New_York"))
    assert list(compare_rows("gold.delays", wanted.delays, zoned, ["origin", "time_hour"])) == []
    shifted = wanted.delays.assign(time_hour=wanted.delays["time_hour"] + pandas.Timedelta(hours=1))
    assert list(compare_rows("gold.delays", wanted.delays, shifted, ["origin", "time_hour"])) != []


def test_differences_are_fit_for_json(wanted: Expected, right: Found) -> None:
    broken = dataclasses.replace(
        right,
        delays=right.delays.assign(flights=0, temp=None),
        weather=right.weather.iloc[:-1],
        positions=dict(right.positions) | {"flights": Positions(0, 0, None, None, 0)},
    )
    json.dumps([dataclasses.asdict(one) for one in prove(wanted, broken)])


@pytest.mark.parametrize("module", [expected_module, expected_rules, expected_times, proof_module])
def test_the_proof_shares_no_code_with_what_it_proves(module: Any) -> None:
    tree = ast.parse(Path(module.__file__).read_text())
    imported = {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    imported |= {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    ours = {name for name in imported if name.split(".")[0] in ("connectors", "pipeline", "jobs", "pyspark")}
    assert ours <= {"jobs.demo.expected", "jobs.demo.expected_rules", "jobs.demo.expected_times"}
