"""A resharder process of the chaos test: one random split or merge.

    reshard.py CONFIG STREAM SEED
"""

from __future__ import annotations

import random
import sys

from pipeline import load_config, reshard
from pipeline.errors import HeadraceError
from pipeline.model.shards import ShardState
from pipeline.reshard.control_log import ControlLog


def main(config_path: str, stream: str, seed: str) -> int:
    config = load_config(config_path)
    choose = random.Random(int(seed))
    try:
        with ControlLog(config.connection, config.stream(stream)) as control:
            leaves = control.map.leaves
        open_leaves = [leaf for leaf in leaves if leaf.state is ShardState.OPEN]
        if len(leaves) > 6 or (len(leaves) > 2 and choose.random() < 0.5):
            first = choose.randrange(len(leaves) - 1)
            done = reshard.merge(stream, leaves[first].id, leaves[first + 1].id, config=config)
        else:
            shard = choose.choice(open_leaves or list(leaves))
            done = reshard.split(stream, shard.id, at=choose.randrange(shard.low + 1, shard.high), config=config)
    except HeadraceError as error:
        print(f"reshard: {error}", file=sys.stderr, flush=True)
        return 1
    print(f"reshard: {done.parents} -> {done.children}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
