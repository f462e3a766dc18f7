"""headrace dlq list|show|redrive: dead letters. headrace replay: a stretch of a stream again."""

from __future__ import annotations

import base64
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from pipeline.cli.output import Json, plain, print_json, print_table, say
from pipeline.config import load_config
from pipeline.consume.rewind import rewind
from pipeline.deadletter.log import Kept
from pipeline.errors import ConfigError
from pipeline.replay.redrive import Redrive
from pipeline.replay.replay import Replay
from pipeline.replay.revive import CannotRevive

RAW_SHOWN_BYTES = 4_096
Name = Annotated[str, typer.Argument(help="The stream's name in headrace.yml.")]
WhereOption = Annotated[
    str | None,
    typer.Option("--where", help="Conditions joined by `and`, such as: error = 'ValueError' and value.number >= 5."),
]
Rate = Annotated[float | None, typer.Option(min=0.001, help="Records a second at most.")]


def register(app: typer.Typer) -> None:
    """Add the group `dlq` and the command `replay` to ``app``."""
    group = typer.Typer(no_args_is_help=True, help="Dead letters: what could not be handled, and back into the stream.")
    group.command("list")(list_letters)
    group.command()(show)
    group.command()(redrive)
    app.add_typer(group, name="dlq")
    app.command()(replay)


def list_letters(
    stream: Name,
    where: WhereOption = None,
    maximum: Annotated[int, typer.Option("--max", min=1, help="The newest so many.")] = 100,
    as_json: Json = False,
) -> None:
    """The dead letters of a stream, newest last."""
    with Redrive(load_config(), stream) as dead:
        letters = dead.matching(where)[-maximum:]
    if as_json:
        print_json([kept.about() | {"redriven": redriven} for kept, redriven in letters])
        return
    columns = ("offset", "key", "from", "error", "text", "attempts", "group", "when", "redriven")
    rows = [
        (
            str(kept.offset), kept.about()["key"], _origin(kept), kept.letter.error, kept.letter.text[:80],
            kept.letter.attempts, kept.letter.group, _time(kept.letter.last_ms), "yes" if redriven else "",
        )
        for kept, redriven in letters
    ]  # fmt: skip
    print_table(f"Dead letters of {stream}", columns, rows)


def show(
    stream: Name,
    offset: Annotated[int, typer.Argument(min=0, help="The letter's offset, as `list` shows it.")],
    as_json: Json = False,
) -> None:
    """One dead letter: the decoded record, and why it failed."""
    with Redrive(load_config(), stream) as dead:
        found = next((one for one in dead.matching(f"dead = {offset}")), None)
        if found is None:
            raise ConfigError(f"{dead.stream.dead_topic} has no letter at offset {offset}: see `headrace dlq list {stream}`")
        kept, redriven = found
        about: dict[str, Any] = kept.about() | {"redriven": redriven}
        try:
            records = dead.reviver.records(kept)
            about["records"] = [{"key": r.key, "value": r.value, "id": r.id, "headers": r.headers} for r in records]
        except CannotRevive as error:
            about["cannot_decode"] = str(error)
            about["raw_base64"] = base64.b64encode((kept.raw or b"")[:RAW_SHOWN_BYTES]).decode()
    if as_json:
        print_json(plain(about))
        return
    table = Table(title=f"Dead letter {offset} of {stream}", title_justify="left", show_header=False)
    for name, value in about.items():
        table.add_row(name, _time(value) if name.endswith("_ms") else str(plain(value)))
    Console().print(table)


def redrive(
    stream: Name,
    where: WhereOption = None,
    rate: Rate = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Count, and do nothing.")] = False,
    as_json: Json = False,
) -> None:
    """Put dead letters back into their stream, each once, with their first dedup id and order. A redrive that was broken off
    is ended first."""
    with Redrive(load_config(), stream) as dead:
        outcome = dead.run(where, rate=rate, dry_run=dry_run)
    if as_json:
        print_json(asdict(outcome) | {"stream": stream, "dry_run": dry_run})
        return
    would = outcome.matched - outcome.already - outcome.cannot
    done = f"{would:,} would be put back" if dry_run else f"{outcome.redriven:,} were put back"
    resumed = f" ({outcome.resumed:,} of a redrive that had not ended)" if outcome.resumed else ""
    say(f"{outcome.matched:,} letters match; {done}{resumed}; {outcome.already:,} were before; {outcome.cannot:,} cannot be.")


def replay(
    stream: Name,
    since: Annotated[str, typer.Option("--from", help="A time (ISO 8601 with zone), or earliest.")] = "earliest",
    until: Annotated[str | None, typer.Option("--to", help="A time; default: what is there now.")] = None,
    into: Annotated[str | None, typer.Option(help="The stream to put the records into.")] = None,
    group: Annotated[str | None, typer.Option(help="Instead: the stopped group that reads again from there.")] = None,
    rate: Rate = None,
    where: WhereOption = None,
    as_json: Json = False,
) -> None:
    """Read a stretch of a stream again, parents first: into another stream, or by a group. The same command given again after
    it was broken off makes no repeats."""
    config = load_config()
    begin: str | datetime = since if since == "earliest" else _moment("--from", since)
    end = _moment("--to", until) if until is not None else None
    if (into is None) == (group is None):
        raise ConfigError("replay needs either --into STREAM or --group G")
    if group is not None:
        if end is not None or where is not None or rate is not None:
            raise ConfigError("--to, --where and --rate go with --into: a group reads on from --from to the end")
        positions = rewind(stream, group, begin, config=config)
        if as_json:
            print_json({"stream": stream, "group": group, "positions": {f"{t}[{p}]": at for (t, p), at in positions.items()}})
        else:
            say(f"Group {group} reads {stream} again from {since}: start its consumers.")
        return
    assert into is not None
    outcome = Replay(config, stream, into, begin, end, where).run(rate=rate)
    if as_json:
        print_json(asdict(outcome) | {"stream": stream, "into": into})
    else:
        say(f"{outcome.put:,} of {outcome.read:,} records of {stream} are in {into}; {outcome.bad:,} messages could not be read.")


def _origin(kept: Kept) -> str:
    letter = kept.letter
    return f"{letter.topic}[{letter.partition}]@{letter.offset}" + (f"/{letter.index}" if letter.index >= 0 else "")


def _time(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1000, UTC).isoformat(timespec="seconds")


def _moment(option: str, text: str) -> datetime:
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise ConfigError(f"{option}: expected a time such as 2026-01-31T12:00:00Z, not {text!r}") from None
    if found.tzinfo is None:
        raise ConfigError(f"{option}: the time needs its zone, such as {text}Z")
    return found
