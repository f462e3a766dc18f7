"""A resharder process of the chaos test: a random split or merge every second, until it is killed.

    reshard.py CONFIG STREAM NAME FOLDER
"""

from __future__ import annotations

import faulthandler
import random
import signal
import sys
import threading

from pipeline import load_config
from pipeline.errors import HeadraceError
from pipeline.model.shards import ShardState
from pipeline.reshard import Resharded, Resharder

PAUSE_S = 1.0


def main(config_path: str, stream: str, name: str, folder: str) -> None:
    config = load_config(config_path)
    stopping = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stopping.set())
    while not stopping.wait(PAUSE_S):
        try:
            with Resharder(config.connection, config.stream(stream)) as resharder:
                while not stopping.wait(PAUSE_S):
                    done = something(resharder)
                    print(f"{name}: {done.parents} -> {done.children}", flush=True)
        except HeadraceError as error:
            print(f"{name}: {error}", file=sys.stderr, flush=True)


def something(resharder: Resharder) -> Resharded:
    leaves = resharder.map.leaves
    open_leaves = [leaf for leaf in leaves if leaf.state is ShardState.OPEN]
    if len(leaves) > 6 or (len(leaves) > 2 and random.random() < 0.5):
        first = random.randrange(len(leaves) - 1)
        return resharder.merge(leaves[first].id, leaves[first + 1].id)
    shard = random.choice(open_leaves or list(leaves))
    return resharder.split(shard.id, random.randrange(shard.low + 1, shard.high))


if __name__ == "__main__":
    faulthandler.register(signal.SIGUSR1)  # where it hangs, for whoever asks
    main(*sys.argv[1:])
