"""A producer process of the chaos test: puts rising numbers, and writes down which were acknowledged.

    produce.py CONFIG STREAM NAME FOLDER

Numbers go on behind the highest up to which all are known to be acknowledged, so a killed process replays some under the
same dedup ids. SIGTERM: put no more, flush, end.
"""

from __future__ import annotations

import faulthandler
import os
import signal
import sys
import time
from collections import deque
from pathlib import Path

from pipeline import Producer, load_config
from pipeline.errors import BufferFullError, RetryableError

KEYS = 25


def main(config_path: str, stream: str, name: str, folder: str) -> None:
    stopping = []
    signal.signal(signal.SIGTERM, lambda *_: stopping.append(True))
    log = os.open(Path(folder) / f"{name}.acknowledged", os.O_CREAT | os.O_APPEND | os.O_RDWR)
    known = {int(line) for line in Path(folder, f"{name}.acknowledged").read_text().split("\n")[:-1]}
    number = 0
    while number in known:
        number += 1
    pending: deque[tuple[int, object]] = deque()
    with Producer(stream, config=load_config(config_path), name=name, linger_ms=5, buffer_records_max=5000) as producer:

        def write_down() -> None:
            done = []
            while pending and pending[0][1].done():
                acknowledged, receipt = pending.popleft()
                receipt.result(0)
                done.append(f"{acknowledged}\n")
            if done:
                os.write(log, "".join(done).encode())

        while not stopping:
            for _ in range(10):
                key = f"{name}-{number % KEYS}"
                try:
                    receipt = producer.put({"item": key, "number": number, "note": None}, key, position=number, timeout=0.5)
                except BufferFullError:
                    break
                pending.append((number, receipt))
                number += 1
            write_down()
            time.sleep(0.01)
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            try:
                producer.flush(5)
                break
            except RetryableError:
                continue
        write_down()


if __name__ == "__main__":
    faulthandler.register(signal.SIGUSR1)  # where it hangs, for whoever asks
    main(*sys.argv[1:])
