"""headrace top: streams, shards, lags and tables, live or once."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Annotated, Any

import typer
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from pipeline.cli.output import Json, print_json
from pipeline.config import load_config
from pipeline.watch.looking import Looker
from pipeline.watch.view import view

SHARDS_SHOWN = 24
BAR_CELLS = 24
BAR_STYLE = "cyan"


def top(
    interval: Annotated[float, typer.Option(min=0.2, max=60, help="Seconds between looks.")] = 2.0,
    once: Annotated[bool, typer.Option("--once", help="Look twice, `interval` apart, print, and end.")] = False,
    as_json: Json = False,
) -> None:
    """Streams, shards, lags and tables as they run. Ctrl-C ends it; --json prints a line each time."""
    looker = Looker(load_config())
    console = Console()
    try:
        before = looker.look()
        if once:
            time.sleep(interval)
            shown = view(before, looker.look())
            print_json(shown) if as_json else console.print(rendered(shown))
            return
        with Live(console=console, screen=not as_json and console.is_terminal, auto_refresh=False) as live:
            while True:
                time.sleep(interval)
                now = looker.look()
                shown = view(before, now)
                print_json(shown) if as_json else live.update(rendered(shown), refresh=True)
                before = now
    except KeyboardInterrupt:
        return
    finally:
        looker.close()


def rendered(shown: dict[str, Any]) -> RenderableType:
    """A view for people."""
    parts: list[RenderableType] = []
    for stream in shown["streams"]:
        parts += [_title(stream), _shards(stream), _groups(stream["groups"])]
    if shown["tables"]:
        parts.append(_tables(shown["tables"]))
    if not parts:
        parts.append(Text("No stream of headrace.yml is on this cluster yet: `headrace stream create NAME`."))
    if shown["silent"]:
        parts.append(Text(f"no answer from {', '.join(shown['silent'])}", style="red"))
    return Group(*parts)


def _title(stream: dict[str, Any]) -> Text:
    states = stream["shards_by_state"]
    text = Text.assemble((stream["stream"], "bold"), f"  {_rate(stream['records_per_s'])} records/s")
    text.append(f"  {_rate(stream['bytes_per_s'])} bytes/s  {stream['buffered']:,} buffered  {states.get('open', 0)} open shards")
    if stream["hot_keys"]:
        text.append("  hottest keys " + ", ".join(f"top {rank}: {share:.0%}" for rank, share in stream["hot_keys"].items()))
    if stream["failed"]:
        text.append(f"  {stream['failed']:,} failed", style="red")
    if stream["dead_letters"]:
        text.append(f"  {stream['dead_letters']:,} dead letters", style="yellow")
    if stream["pending_reshards"]:
        text.append(f"  {stream['pending_reshards']} reshards pending", style="yellow")
    return text


def _shards(stream: dict[str, Any]) -> Table:
    """The busiest first; bars beside the busiest of all."""
    ordered = sorted(stream["shards"], key=lambda one: -(one["records_per_s"] or 0))
    highest = max((one["records_per_s"] or 0 for one in ordered), default=0) or 1
    table = _table("shard", "keys", "records/s", "", "messages")
    for one in ordered[:SHARDS_SHOWN]:
        share = "" if one["share"] is None else f"{one['share']:.1%}"
        done = one["records_per_s"] or 0
        bar = ProgressBar(total=highest, completed=done, width=BAR_CELLS, complete_style=BAR_STYLE, finished_style=BAR_STYLE)
        table.add_row(one["shard"], share, _rate(one["records_per_s"]), bar, f"{one['messages']:,}")
    if len(ordered) > SHARDS_SHOWN:
        table.add_row(f"and {len(ordered) - SHARDS_SHOWN} more", "", "", "", "")
    return table


def _groups(groups: Iterable[dict[str, Any]]) -> Table:
    table = _table("group", "records/s", "lag", "behind", "at the gate", "dead letters")
    for one in groups:
        behind = "" if one["behind_s"] is None else f"{one['behind_s']:.1f} s"
        lag = sum(one["lag"].values())
        table.add_row(
            one["group"], _rate(one["records_per_s"]), f"{lag:,}", behind, str(one["gated_shards"]), f"{one['dead_letters']:,}"
        )
    return table


def _tables(tables: Iterable[dict[str, Any]]) -> Table:
    table = _table("table", "version", "records", "rejected", "behind", "files", "last commit")
    for one in tables:
        ago = "" if one["committed_s_ago"] is None else f"{one['committed_s_ago']:.1f} s ago"
        counts = (f"{one[name]:,}" for name in ("version", "records", "rejected", "behind_messages", "files"))
        table.add_row(one["table"], *counts, ago)
    return table


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2))
    for number, column in enumerate(columns):
        table.add_column(column, justify="left" if number == 0 or not column else "right", header_style="dim")
    return table


def _rate(value: float | None) -> str:
    return "-" if value is None else f"{value:,.0f}"
