"""A Spark driver of the chaos test: every table of a configuration, until it is killed or through.

    tables.py CONFIG MODE [STREAM FOLDER]

With a folder, once through (available-now): what silver and gold hold is written there, read by plain Spark, and the exit
code is the audit's of the stream.
"""

from __future__ import annotations

import faulthandler
import json
import signal
import sys
from pathlib import Path

from jobs import audit
from jobs.arguments import stop_on_signals
from jobs.run import run_tables
from jobs.session import spark_session
from pipeline import load_config, logs


def main(config_path: str, mode: str, stream: str | None = None, folder: str | None = None) -> int:
    logs.configure(role="jobs")
    config = load_config(config_path)
    spark = spark_session("chaos", memory="1g", short=True)
    print("running", flush=True)
    with stop_on_signals() as stop:
        run_tables(spark, config, None, mode, stop)
    if folder is None or stream is None:
        spark.stop()
        return 0

    def read(table: str) -> list[dict[str, object]]:
        return [row.asDict() for row in spark.read.format("delta").load(f"{config.warehouse}/{table}").collect()]

    silver = [{"item": row["item"], "number": row["number"]} for row in read("silver/orders") if not row["_deleted"]]
    [gold] = read("gold/total")
    Path(folder, "tables.json").write_text(json.dumps({"silver": silver, "gold": [gold["n"], gold["total"]]}))
    return audit.main([stream, "--config", config_path, "--json"])  # stops the session


if __name__ == "__main__":
    faulthandler.register(signal.SIGUSR1)  # where it hangs, for whoever asks
    sys.exit(main(*sys.argv[1:]))
