"""OpenLineage events of jobs, with the extra `headrace[lineage]`: which streams and tables a table was made from, and how its
run went. They go to $HEADRACE_HOME/lineage.jsonl, a line an event; OpenLineage's own settings (OPENLINEAGE_URL,
OPENLINEAGE_CONFIG) send them elsewhere. Never in the way of a job: trouble is a warning.

Datasets are named by OpenLineage's rules: kafka://HOST:PORT + topic, and file or s3a://BUCKET + path.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from jobs.tables import table_path
from pipeline.config import Config
from pipeline.config.load import home

log = logging.getLogger("headrace.jobs")
FILE = "lineage.jsonl"
NAMESPACE = "headrace"
PRODUCER = "urn:headrace"


@contextmanager
def traced(config: Config, tables: Sequence[str]) -> Iterator[None]:
    """START of each table's job, then COMPLETE of all, or FAIL where the block raised."""
    runs = _started(config, tables)
    try:
        yield
    except BaseException:
        _emit(config, runs, "FAIL")
        raise
    _emit(config, runs, "COMPLETE")


def inputs_of(config: Config, table: str) -> list[tuple[str, str]]:
    """(namespace, name) of what a table is made from."""
    settings = config.table(table)
    if settings.layer == "bronze":
        server = config.connection.bootstrap.split(",")[0]
        return [(f"kafka://{server}", config.stream(source).topic) for source in settings.sources]
    return [output_of(config, source) for source in settings.sources]


def output_of(config: Config, table: str) -> tuple[str, str]:
    """(namespace, name) of a table."""
    path = table_path(config, table)
    parts = urlsplit(path)
    return (f"{parts.scheme}://{parts.netloc}", parts.path.lstrip("/")) if parts.scheme else ("file", str(Path(path).absolute()))


def _started(config: Config, tables: Sequence[str]) -> dict[str, str]:
    """Run ids by table; none where the extra is not installed."""
    try:
        from openlineage.client.uuid import generate_new_uuid
    except ImportError:
        return {}
    runs = {table: str(generate_new_uuid()) for table in tables}
    _emit(config, runs, "START")
    return runs


def _emit(config: Config, runs: dict[str, str], state: str) -> None:
    if not runs:
        return
    try:
        client = _client()
        for table, run_id in runs.items():
            client.emit(_event(config, table, run_id, state))
    except Exception as error:  # noqa: BLE001 - whatever a transport raises: tables matter more than their lineage
        log.warning("no lineage of %s: %s", ", ".join(runs), error)


def _client() -> Any:
    from openlineage.client import OpenLineageClient
    from openlineage.client.transport.file import FileConfig, FileTransport

    if any(name.startswith("OPENLINEAGE_") for name in os.environ):
        return OpenLineageClient()
    path = home() / FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    return OpenLineageClient(transport=FileTransport(FileConfig(log_file_path=str(path), append=True)))


def _event(config: Config, table: str, run_id: str, state: str) -> Any:
    from openlineage.client.event_v2 import InputDataset, Job, OutputDataset, Run, RunEvent, RunState

    return RunEvent(
        eventTime=datetime.now(UTC).isoformat(),
        eventType=RunState[state],
        run=Run(run_id),
        job=Job(NAMESPACE, table),
        producer=PRODUCER,
        inputs=[InputDataset(*one) for one in inputs_of(config, table)],
        outputs=[OutputDataset(*output_of(config, table))],
    )
