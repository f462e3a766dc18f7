"""A consumer process of the chaos test: writes down every record it handles, and when (the machine's monotonic clock).

    consume.py CONFIG STREAM NAME FOLDER
"""

from __future__ import annotations

import faulthandler
import os
import signal
import sys
import time
from pathlib import Path

from pipeline import Consumer, load_config
from pipeline.errors import RetryableError
from pipeline.model.record import Record


def main(config_path: str, stream: str, name: str, folder: str) -> None:
    log = os.open(Path(folder) / f"{name}.handled", os.O_CREAT | os.O_APPEND | os.O_WRONLY)
    stopping = []

    def handle(record: Record) -> None:
        line = f"{time.monotonic_ns()} {record.key} {record.value['number']} {record.producer} {record.seq}\n"
        os.write(log, line.encode())

    while not stopping:
        try:
            with Consumer(stream, group="chaos", config=load_config(config_path), commit_interval_s=0.5) as consumer:

                def stop(*_: object, consumer: Consumer = consumer) -> None:
                    stopping.append(True)
                    consumer.stop()

                signal.signal(signal.SIGTERM, stop)
                for record in consumer:
                    handle(record)
        except RetryableError as error:
            print(f"{name}: {error}", file=sys.stderr, flush=True)
            time.sleep(0.5)


if __name__ == "__main__":
    faulthandler.register(signal.SIGUSR1)  # where it hangs, for whoever asks
    main(*sys.argv[1:])
