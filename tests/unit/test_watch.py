"""What `headrace top` shows of given figures, and the lag of a group over a given map."""

from __future__ import annotations

from rich.console import Console

from pipeline.cli.top import rendered
from pipeline.model.shards import Shard, ShardMap, ShardState, shard_event
from pipeline.observe.scrape import Figures
from pipeline.watch.survey import lag_of
from pipeline.watch.view import Moment, view

TEXT = """
headrace_producer_records_acknowledged_total{{stream="s"}} {0}
headrace_producer_shard_records_total{{stream="s",shard="s0"}} {0}
headrace_producer_shard_records_total{{stream="s",shard="s1"}} 0
headrace_consumer_records_handled_total{{stream="s",group="g"}} {0}
headrace_consumer_behind_seconds{{stream="s",group="g"}} 3
headrace_stream_shards{{stream="s",state="open"}} 2
headrace_stream_dead_letters_kept{{stream="s"}} 4
headrace_stream_shard_hash_share_ratio{{stream="s",shard="s0"}} 0.5
headrace_stream_shard_hash_share_ratio{{stream="s",shard="s1"}} 0.5
headrace_group_lag_messages{{stream="s",group="g",shard="s0"}} 7
headrace_group_lag_messages{{stream="s",group="away",shard="s0"}} 9
headrace_table_version{{table="bronze.s"}} 12
headrace_table_committed_timestamp_seconds{{table="bronze.s"}} 990
python_info 1
"""


def moment(records: int, clock_s: float, processes: int = 1) -> Moment:
    figures = Figures()
    for _ in range(processes):
        figures.add_text(TEXT.format(records))
    return Moment(figures, clock_s, 1000.0)


def test_rates_are_the_growth_between_two_looks() -> None:
    (stream,) = view(moment(100, 10.0), moment(300, 12.0))["streams"]
    assert stream["records_per_s"] == 100
    assert [one["records_per_s"] for one in stream["shards"]] == [100, 0]
    assert [(one["group"], one["records_per_s"]) for one in stream["groups"]] == [("away", 0), ("g", 100)]


def test_there_are_no_rates_at_the_first_look_and_none_below_zero_after_a_restart() -> None:
    assert view(None, moment(5, 1.0))["streams"][0]["records_per_s"] is None
    assert view(moment(500, 1.0), moment(5, 2.0))["streams"][0]["records_per_s"] == 0


def test_a_group_that_nobody_runs_is_shown_with_its_lag() -> None:
    (stream,) = view(None, moment(1, 1.0))["streams"]
    away, alive = stream["groups"]
    assert (away["group"], away["lag"], away["behind_s"]) == ("away", {"s0": 9}, None)
    assert (alive["group"], alive["lag"], alive["behind_s"]) == ("g", {"s0": 7}, 3.0)


def test_processes_are_added_up_and_the_worst_age_counts() -> None:
    (stream,) = view(None, moment(10, 1.0, processes=2))["streams"]
    assert stream["acknowledged"] == 20
    assert stream["groups"][1]["behind_s"] == 3.0
    assert stream["dead_letters"] == 4, "two observers see the same letters"


def test_tables_tell_how_long_ago_they_were_committed() -> None:
    (table,) = view(None, moment(1, 1.0))["tables"]
    assert (table["table"], table["version"], table["committed_s_ago"]) == ("bronze.s", 12, 10.0)


def test_the_picture_names_everything_and_silent_endpoints() -> None:
    now = moment(300, 2.0)
    now.figures.silent.append("jobs-7")
    console = Console(width=140, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(rendered(view(moment(100, 1.0), now)))
    text = console.export_text()
    for expected in ("200 records/s", "s0", "4 dead letters", "away", "bronze.s", "10.0 s ago", "jobs-7", "━"):
        assert expected in text


def test_an_empty_cluster_says_what_to_do() -> None:
    console = Console(width=140, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(rendered(view(None, Moment(Figures(), 0.0, 0.0))))
    assert "headrace stream create" in console.export_text()


def shard_map(*, split: bool) -> ShardMap:
    """s0 over everything in partition 0; split: s1 stays in its partition, s2 goes to a new one."""
    half = 1 << 63
    first = Shard("s0", 0, 1 << 64, "t", 0)
    events = [{"type": "CREATED", "shards": [shard_event(first)], "hash": "xxh64-42", "subject": "x", "ordering": "strict"}]
    if split:
        children = [shard_event(Shard("s1", 0, half, "t", 0)), shard_event(Shard("s2", half, 1 << 64, "t", 1))]
        events.append({"type": "PREPARE", "reshard": "r", "parents": ["s0"], "children": children, "scan_from": {"s0": 5}})
        events.append({"type": "COMMIT", "reshard": "r", "seals": {"s0": 10}})
    made = ShardMap()
    for offset, event in enumerate(events):
        made = made.apply(event, offset)
    assert made.created
    assert not split or made.shards["s0"].state is ShardState.SEALED
    return made


def test_a_groups_lag_goes_up_to_the_seal_and_on_in_the_children() -> None:
    bounds = ({("t", 0): 0, ("t", 1): 0}, {("t", 0): 15, ("t", 1): 4})
    assert lag_of(shard_map(split=True), {("t", 0): 6}, bounds) == {"s0": 4, "s1": 4, "s2": 4}
    assert lag_of(shard_map(split=True), {("t", 0): 13, ("t", 1): 4}, bounds) == {"s1": 2, "s2": 0}


def test_what_retention_removed_is_no_lag_and_a_foreign_group_has_none() -> None:
    bounds = ({("t", 0): 8}, {("t", 0): 15})
    assert lag_of(shard_map(split=False), {("t", 0): 2}, bounds) == {"s0": 7}
    assert lag_of(shard_map(split=False), {}, bounds) is None
