"""Splitting and merging shards of a running stream.

    from pipeline import reshard

    reshard.split("flights", "s0")
    reshard.merge("flights", "s1", "s2")
"""

from __future__ import annotations

from pipeline.config import Config, load_config
from pipeline.reshard import resharder
from pipeline.reshard.resharder import Resharded

__all__ = ["Resharded", "merge", "split"]


def split(stream: str, shard: str, *, at: int | None = None, config: Config | None = None) -> Resharded:
    """Split a shard of a stream at hash key ``at`` (default: the middle of its range); see ``resharder.split``."""
    config = config or load_config()
    return resharder.split(config.connection, config.stream(stream), shard, at)


def merge(stream: str, first: str, second: str, *, config: Config | None = None) -> Resharded:
    """Merge two neighbouring shards of a stream; see ``resharder.merge``."""
    config = config or load_config()
    return resharder.merge(config.connection, config.stream(stream), first, second)
