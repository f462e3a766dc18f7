"""headrace stream …: create, list, describe, history, split, merge, advise."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.tree import Tree

from pipeline import reshard
from pipeline.cli.output import Json, print_json, print_table, say
from pipeline.config import Config, load_config
from pipeline.errors import UnknownStreamError
from pipeline.kafka.markers import Markers
from pipeline.kafka.registry_client import RegistryClient
from pipeline.kafka.topics import Topics
from pipeline.model.keys import HASH_SPACE, hash_key
from pipeline.model.shards import Shard, ShardMap, ShardState
from pipeline.reshard.advisor import HotKey, hot_keys, median_cut
from pipeline.reshard.control_log import ControlLog, create_stream
from pipeline.reshard.resharder import Resharder
from pipeline.schema.envelope import envelope_text
from pipeline.schema.table_columns import load_stream_schema

TIMEOUT_S = 15.0
Name = Annotated[str, typer.Argument(help="The stream's name in headrace.yml.")]


def register(app: typer.Typer) -> None:
    """Add the group `stream` to ``app``."""
    group = typer.Typer(no_args_is_help=True, help="Streams: create, describe, split and merge shards.")
    for command in (create, describe, history, split, merge, advise):
        group.command()(command)
    group.command("list")(list_streams)
    app.add_typer(group, name="stream")


def create(name: Name, as_json: Json = False) -> None:
    """Create a stream of headrace.yml: its topics, its shards, its schema subject."""
    config = load_config()
    settings = config.stream(name)
    schema = load_stream_schema(settings.avro_schema, config.bronze_of(name))
    shard_map = create_stream(config.connection, settings)
    registry = RegistryClient(config.connection)
    registry.register(schema.full_name, schema.text)
    registry.register(settings.subject, envelope_text(schema))
    if as_json:
        print_json({"stream": name, "shards": len(shard_map.leaves)})
    else:
        say(f"Stream {name} is there, with {len(shard_map.leaves)} open shards.")


def list_streams(as_json: Json = False) -> None:
    """The streams of headrace.yml, and whether they are on the cluster."""
    config = load_config()
    there = set(Topics(config.connection).names())
    rows = []
    for name, settings in sorted(config.streams.items()):
        created = settings.control_topic in there
        shards = len(_map(config, name).leaves) if created else 0
        rows.append({"stream": name, "created": created, "shards": shards, "ordering": settings.ordering})
    if as_json:
        print_json({"streams": rows})
    else:
        print_table("Streams", ["stream", "created", "open shards", "ordering"], [list(row.values()) for row in rows])


def describe(name: Name, as_json: Json = False) -> None:
    """Every shard of a stream: its hash keys, its place, its lineage, its state."""
    config = load_config()
    with Markers(config.connection) as markers:
        shards = [_described(markers, shard) for shard in _map(config, name).in_lineage_order()]
    if as_json:
        print_json({"stream": name, "shards": shards})
        return
    rows = [
        [
            shard["id"],
            f"{100 * int(shard['low']) / HASH_SPACE:.1f} to {100 * int(shard['high']) / HASH_SPACE:.1f} %",
            f"{shard['topic']}/{shard['partition']}",
            shard["generation"],
            " ".join(shard["parents"]),
            " ".join(shard["children"]),
            shard["state"],
            shard["seal"],
            shard["end_offset"],
        ]
        for shard in shards
    ]
    columns = ["shard", "hash keys", "place", "gen", "parents", "children", "state", "seal", "end"]
    print_table(f"Stream {name}", columns, rows)


def history(name: Name, as_json: Json = False) -> None:
    """The lineage of a stream's shards, as a tree."""
    shard_map = _map(load_config(), name)
    if as_json:
        print_json({"stream": name, "lineage": {s.id: list(s.children) for s in shard_map.in_lineage_order()}})
        return
    tree = Tree(f"[bold]{name}")
    for shard in shard_map.in_lineage_order():
        if not shard.parents:
            _grow(tree, shard_map, shard)
    Console().print(tree)


def split(
    name: Name,
    shard: Annotated[str, typer.Argument(help="The shard to split, such as s0.")],
    at: Annotated[str | None, typer.Option(help="Hash key of the cut: the second child starts at it.")] = None,
    key: Annotated[str | None, typer.Option(help="Cut at this partition key's hash key.")] = None,
    median: Annotated[bool, typer.Option("--median", help="Cut where the newest records are halved.")] = False,
    as_json: Json = False,
) -> None:
    """Split a shard in two, while producers and consumers run: in the middle of its range, unless told where."""
    if sum((at is not None, key is not None, median)) > 1:
        raise typer.BadParameter("give one of --at, --key and --median")
    if at is not None and not at.isdecimal():
        raise typer.BadParameter("--at takes a hash key, a decimal number below 2**64")
    cut = int(at) if at is not None else hash_key(key) if key is not None else None
    if median:
        config = load_config()
        parent = _map(config, name).shards.get(shard)
        cut = median_cut(config.connection, config.stream(name), parent) if parent is not None else None
    _report(reshard.split(name, shard, at=cut), as_json)


def merge(
    name: Name,
    first: Annotated[str, typer.Argument(help="A shard.")],
    second: Annotated[str, typer.Argument(help="Its neighbour.")],
    as_json: Json = False,
) -> None:
    """Merge two neighbouring shards, while producers and consumers run."""
    _report(reshard.merge(name, first, second), as_json)


def advise(
    name: Name,
    share: Annotated[float, typer.Option(min=0.01, max=1.0, help="A key is hot from this share of its shard on.")] = 0.3,
    apply: Annotated[bool, typer.Option("--apply", help="Do what is proposed.")] = False,
    as_json: Json = False,
) -> None:
    """Hot keys, from the newest records of each open shard, and the splits that give each a shard of its own."""
    config = load_config()
    settings = config.stream(name)
    hot = hot_keys(config.connection, settings, _map(config, name), share)
    done = []
    if apply:
        with Resharder(config.connection, settings) as resharder:
            done = [resharder.isolate(one.shard, one.hash_key) for one in hot if not one.alone]
    if as_json:
        rows = [asdict(one) | {"hash_key": str(one.hash_key)} for one in hot]
        print_json({"stream": name, "hot_keys": rows, "applied": [_row_of(one) for one in done]})
        return
    if not hot:
        say(f"No key has {share:.0%} or more of its shard's newest records.")
        return
    print_table(
        f"Hot keys of {name}",
        ["shard", "key", "share of the newest", "records", "split at", "and at"],
        [
            [one.shard, one.key, f"{one.share:.0%}", one.records, *(["alone already", ""] if one.alone else _cuts(one))]
            for one in hot
        ],
    )
    for reshard_done in done:
        _report(reshard_done, as_json=False)
    if not done and not all(one.alone for one in hot):
        say(f"`headrace stream advise {name} --apply` gives each its own shard; order per key holds while it does.")


def _cuts(hot: HotKey) -> list[str]:
    return [str(hot.hash_key), str(hot.hash_key + 1)]


def _row_of(done: reshard.Resharded) -> dict[str, Any]:
    return {"reshard": done.reshard, "parents": done.parents, "children": done.children, "seals": done.seals}


def _report(done: reshard.Resharded, as_json: bool) -> None:
    if as_json:
        print_json(_row_of(done))
    else:
        seals = ", ".join(f"{parent} at offset {seal}" for parent, seal in done.seals.items())
        say(f"Sealed {seals}; open now: {', '.join(done.children)}.")


def _map(config: Config, name: str) -> ShardMap:
    with ControlLog(config.connection, config.stream(name)) as control:
        return control.map


def _described(markers: Markers, shard: Shard) -> dict[str, Any]:
    try:
        end: int | None = markers.end_offset(shard.place, TIMEOUT_S)
    except UnknownStreamError:
        end = None
    return {
        "id": shard.id,
        "low": str(shard.low),
        "high": str(shard.high),
        "topic": shard.topic,
        "partition": shard.partition,
        "generation": shard.generation,
        "parents": list(shard.parents),
        "children": list(shard.children),
        "state": shard.state.value,
        "seal": shard.seal,
        "end_offset": end,
    }


def _grow(tree: Tree, shard_map: ShardMap, shard: Shard) -> None:
    mark = {ShardState.OPEN: "[green]open", ShardState.SEALING: "[yellow]sealing", ShardState.SEALED: "[dim]sealed"}[shard.state]
    others = [parent for parent in shard.parents if len(shard.parents) > 1]
    merged = f" [dim](merged from {' and '.join(others)})" if others else ""
    share = f"{(shard.high - shard.low) / HASH_SPACE:.2%} of the keys"
    branch = tree.add(f"{shard.id} {mark}[/] {share}, {shard.topic}/{shard.partition}{merged}")
    for child in shard.children:
        # A merged child hangs below its first parent alone, or it would stand in the tree twice.
        if shard_map.shards[child].parents[0] == shard.id:
            _grow(branch, shard_map, shard_map.shards[child])
