"""Where to cut a shard: at the median of what was put into it lately, or around a key that has too much of it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from pipeline.config import Connection, StreamConfig
from pipeline.errors import DecodeError, ReshardRefusedError
from pipeline.kafka.log_reader import LogEntry, LogReader
from pipeline.kafka.registry_client import RegistryClient
from pipeline.model.keys import hash_key, salted_key
from pipeline.model.shards import Shard, ShardMap
from pipeline.model.sketch import SpaceSaving
from pipeline.model.stamp import STAMP_HEADER, decode_stamp
from pipeline.schema.decode import AggregateDecoder
from pipeline.schema.framing import split_frame

MESSAGES_MAX = 500
ADVICE_MESSAGES_MAX = 100  # of each shard
ADVICE_RECORDS_MIN = 50
SKETCH_KEYS = 1_000
TIMEOUT_S = 15.0


def median_cut(connection: Connection, stream: StreamConfig, shard: Shard) -> int:
    """The hash key that halves the records of the shard's newest messages (at most ``MESSAGES_MAX``).

    Raises ReshardRefusedError where they do not tell: no records, or all on one hash key's side, as when a single key has
    most of them (cut at that key then).
    """
    newest = _newest(connection, shard, RegistryClient(connection), {}, MESSAGES_MAX)
    inside = sorted(hashed for hashed in map(hash_key, newest) if shard.holds(hashed))
    cut = inside[len(inside) // 2] if inside else shard.low
    if cut == shard.low or cut == inside[0]:
        raise ReshardRefusedError(
            f"the newest {len(inside):,} records of shard {shard.id} do not tell where to cut it: "
            + ("there are none" if not inside else "most have one hash key; cut at a key with --key, or at a hash with --at")
        )
    return cut


@dataclass(frozen=True, slots=True)
class HotKey:
    """A key with more than its part of an open shard: ``share`` of the shard's newest ``records`` at least. A split that gives
    its hash key a shard of its own (``Resharder.isolate``) leaves the others to themselves. With ``alone`` it has one already."""

    shard: str
    key: str
    hash_key: int
    share: float
    records: int
    alone: bool


def hot_keys(connection: Connection, stream: StreamConfig, shard_map: ShardMap, share_min: float) -> list[HotKey]:
    """The hottest key of each open shard, where its share of the shard's newest messages is at least ``share_min``; hottest
    first. Shards with few records say nothing."""
    registry = RegistryClient(connection)
    decoders: dict[int, AggregateDecoder] = {}
    found: list[HotKey] = []
    for shard in shard_map.leaves:
        sketch: SpaceSaving[str] = SpaceSaving(SKETCH_KEYS)
        for key in _newest(connection, shard, registry, decoders, ADVICE_MESSAGES_MAX):
            sketch.add(key)
        top = sketch.top(1)
        if not top or sketch.total < ADVICE_RECORDS_MIN:
            continue
        share = (top[0].count - top[0].error) / sketch.total
        if share >= share_min:
            hashed = hash_key(top[0].key)
            alone = shard.high - shard.low == 1
            found.append(HotKey(shard.id, top[0].key, hashed, share, int(sketch.total), alone))
    return sorted(found, key=lambda hot: -hot.share)


def _newest(
    connection: Connection, shard: Shard, registry: RegistryClient, decoders: dict[int, AggregateDecoder], messages_max: int
) -> Iterator[str]:
    """The (salted) keys of a shard's newest messages."""
    reader = LogReader(connection, *shard.place)
    try:
        first, end = reader.bounds(TIMEOUT_S)
        for entry in reader.read(max(first, end - messages_max), end, TIMEOUT_S):
            yield from _keys(entry, shard, registry, decoders)
    finally:
        reader.close()


def _keys(
    entry: LogEntry, shard: Shard, registry: RegistryClient, decoders: dict[int, AggregateDecoder]
) -> list[str]:
    stamp = next((value for name, value in entry.headers if name == STAMP_HEADER), None)
    try:
        if stamp is None or decode_stamp(stamp).shard != shard.id:
            return []
        schema_id, body = split_frame(entry.value or b"")
        if schema_id not in decoders:
            decoders[schema_id] = AggregateDecoder(registry.schema_text(schema_id))
        if not decoders[schema_id].is_envelope:
            return [(entry.key or b"").decode()]
        return [salted_key(record.key, record.salt) for record in decoders[schema_id].decode(body)]
    except (DecodeError, UnicodeDecodeError):
        return []
