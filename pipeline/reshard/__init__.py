"""Splitting and merging shards of a running stream.

    from pipeline import reshard

    reshard.split("flights", "s0")
    reshard.merge("flights", "s1", "s2")

Each call opens connections of its own; for many in a row keep a ``Resharder``.
"""

from __future__ import annotations

from pipeline.config import Config, load_config
from pipeline.reshard.resharder import Resharded, Resharder

__all__ = ["Resharded", "Resharder", "merge", "split"]


def split(stream: str, shard: str, *, at: int | None = None, config: Config | None = None) -> Resharded:
    """Split a shard of a stream at hash key ``at`` (default: the middle of its range); see ``Resharder.split``."""
    config = config or load_config()
    with Resharder(config.connection, config.stream(stream)) as resharder:
        return resharder.split(shard, at)


def merge(stream: str, first: str, second: str, *, config: Config | None = None) -> Resharded:
    """Merge two neighbouring shards of a stream; see ``Resharder.merge``."""
    config = config or load_config()
    with Resharder(config.connection, config.stream(stream)) as resharder:
        return resharder.merge(first, second)
