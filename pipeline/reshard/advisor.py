"""Where to cut a shard: the median hash key of what was put into it lately."""

from __future__ import annotations

from pipeline.config import Connection, StreamConfig
from pipeline.errors import DecodeError, ReshardRefusedError
from pipeline.kafka.log_reader import LogEntry, LogReader
from pipeline.kafka.registry_client import RegistryClient
from pipeline.model.keys import hash_key, salted_key
from pipeline.model.shards import Shard
from pipeline.model.stamp import STAMP_HEADER, decode_stamp
from pipeline.schema.decode import AggregateDecoder
from pipeline.schema.framing import split_frame

MESSAGES_MAX = 500
TIMEOUT_S = 15.0


def median_cut(connection: Connection, stream: StreamConfig, shard: Shard) -> int:
    """The hash key that halves the records of the shard's newest messages (at most ``MESSAGES_MAX``).

    Raises ReshardRefusedError where they do not tell: no records, or all on one hash key's side, as when a single key has
    most of them (cut at that key then).
    """
    registry = RegistryClient(connection)
    decoders: dict[int, AggregateDecoder] = {}
    reader = LogReader(connection, *shard.place)
    try:
        first, end = reader.bounds(TIMEOUT_S)
        hashes: list[int] = []
        for entry in reader.read(max(first, end - MESSAGES_MAX), end, TIMEOUT_S):
            hashes.extend(_hash_keys(entry, shard, registry, decoders))
    finally:
        reader.close()
    inside = sorted(hashed for hashed in hashes if shard.holds(hashed))
    cut = inside[len(inside) // 2] if inside else shard.low
    if cut == shard.low or cut == inside[0]:
        raise ReshardRefusedError(
            f"the newest {len(inside):,} records of shard {shard.id} do not tell where to cut it: "
            + ("there are none" if not inside else "most have one hash key; cut at a key with --key, or at a hash with --at")
        )
    return cut


def _hash_keys(
    entry: LogEntry, shard: Shard, registry: RegistryClient, decoders: dict[int, AggregateDecoder]
) -> list[int]:
    stamp = next((value for name, value in entry.headers if name == STAMP_HEADER), None)
    try:
        if stamp is None or decode_stamp(stamp).shard != shard.id:
            return []
        schema_id, body = split_frame(entry.value or b"")
        if schema_id not in decoders:
            decoders[schema_id] = AggregateDecoder(registry.schema_text(schema_id))
        if not decoders[schema_id].is_envelope:
            return [hash_key((entry.key or b"").decode())]
        return [hash_key(salted_key(record.key, record.salt)) for record in decoders[schema_id].decode(body)]
    except (DecodeError, UnicodeDecodeError):
        return []
