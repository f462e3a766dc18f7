"""Free TCP ports on 127.0.0.1."""

from __future__ import annotations

import random
import socket
from collections.abc import Collection

from pipeline.errors import StackError

HOST = "127.0.0.1"
# Below the range from which Linux (32768+) and macOS and Windows (49152+) take ports for outgoing connections: a client
# that keeps reconnecting to a stopped broker would else, sooner or later, be given the broker's own port.
_FIRST, _LAST = 20_000, 32_767
_ATTEMPTS = 400


def is_free(port: int) -> bool:
    """True when this process could listen on ``port`` now. Another may still take it before it is used."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        # As servers do: connections of the last run that linger in TIME_WAIT do not count.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
            probe.listen(1)
        except OSError:
            return False
    return True


def answers(port: int, timeout_s: float = 1.0) -> bool:
    """True when something accepts connections on ``port``."""
    try:
        with socket.create_connection((HOST, port), timeout_s):
            return True
    except OSError:
        return False


def choose(taken: Collection[int] = ()) -> int:
    """A free port that is not among ``taken``. Raises StackError when none is found."""
    for _ in range(_ATTEMPTS):
        port = random.randint(_FIRST, _LAST)
        if port not in taken and is_free(port):
            return port
    raise StackError(f"no free port between {_FIRST} and {_LAST} on {HOST}: end some of the programs that listen there")
