"""The demo's resharding, while its producer puts and Spark follows: the hottest shard is split, two cold ones are merged."""

from __future__ import annotations

from contextlib import suppress
from itertools import pairwise

from pipeline import Config, reshard
from pipeline.errors import ReshardRefusedError
from pipeline.kafka.markers import Markers
from pipeline.model.shards import Shard
from pipeline.reshard.advisor import median_cut
from pipeline.reshard.control_log import ControlLog

TIMEOUT_S = 15.0


def split_and_merge(config: Config, stream: str) -> str:
    """Split the shard with the most messages where its records are halved, merge the two neighbours with the fewest.
    Returns a sentence about it."""
    with ControlLog(config.connection, config.stream(stream)) as control:
        leaves = list(control.map.leaves)
    with Markers(config.connection) as markers:
        heat = {leaf.id: markers.end_offset(leaf.place, TIMEOUT_S) for leaf in leaves}
    hottest = max(leaves, key=lambda leaf: heat[leaf.id])
    cold = min(
        (pair for pair in pairwise(leaves) if hottest not in pair), key=lambda pair: heat[pair[0].id] + heat[pair[1].id]
    )
    with reshard.Resharder(config.connection, config.stream(stream)) as resharder:
        split = resharder.split(hottest.id, at=_cut(config, stream, hottest))
        merged = resharder.merge(cold[0].id, cold[1].id)
    return (
        f"Split {hottest.id}, the hottest shard of {stream}, into {' and '.join(split.children)}, and merged "
        f"{' and '.join(merged.parents)} into {merged.children[0]}"
    )


def _cut(config: Config, stream: str, shard: Shard) -> int | None:
    with suppress(ReshardRefusedError):  # too few records to tell: the middle of its range
        return median_cut(config.connection, config.stream(stream), shard)
    return None
