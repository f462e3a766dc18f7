"""What `headrace doctor` checks, one after the other: each check says what it found and what to do."""

from __future__ import annotations

import importlib.metadata
import json
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from pipeline.config import Config, StreamConfig
from pipeline.config.load import home
from pipeline.errors import HeadraceError
from pipeline.kafka.overview import Overview
from pipeline.kafka.registry_client import RegistryClient
from pipeline.kafka.topics import Topics
from pipeline.local.java import find_java
from pipeline.observe import targets
from pipeline.observe.scrape import scrape
from pipeline.reshard.control_log import ControlLog

PYTHON_MIN = (3, 11)
FREE_BYTES_MIN = 1 << 30
OK, WARNING, FAILED = "ok", "warning", "failed"


@dataclass(frozen=True, slots=True)
class Check:
    """``what`` was looked at, ``state`` (ok, warning, failed), what was ``found``, and what to ``do`` unless it is ok."""

    what: str
    state: str
    found: str
    do: str = ""


def checks(config: Config) -> Iterator[Check]:
    """All checks in order. None of them raises, none of them changes anything."""
    yield _versions()
    yield _guarded("java", _java, "install headrace[local], or set JAVA_HOME to a Java 17 or newer")
    yield _disk()
    broker = _guarded("broker", lambda: _broker(config), "")
    yield broker
    yield _guarded("registry", lambda: _registry(config), "start it (`headrace up`), or correct `registry:` in headrace.yml")
    if broker.state != FAILED:
        topics = Topics(config.connection)
        for name, stream in config.streams.items():
            yield _guarded(f"stream {name}", lambda stream=stream: _stream(config, stream, topics), "")  # type: ignore[misc]
    for name in config.tables:
        yield _table(config, name)
    yield _endpoints()


def _guarded(what: str, check: Callable[[], Check], do: str) -> Check:
    """The sentence of a HeadraceError says what to do; ``do`` is for where it does not."""
    try:
        return check()
    except HeadraceError as error:
        return Check(what, FAILED, str(error), do)


def _versions() -> Check:
    wanted = ("headrace", "confluent-kafka", "pyspark", "delta-spark", "pyarrow")
    found = {name: _version(name) for name in wanted}
    text = ", ".join([f"Python {sys.version.split()[0]}", *(f"{name} {version or 'missing'}" for name, version in found.items())])
    if sys.version_info[:2] < PYTHON_MIN:
        return Check("versions", FAILED, text, "install Python 3.11 or newer")
    if not all(found.values()):
        return Check("versions", WARNING, text, "tables need Spark: `pip install 'headrace[spark,local]'`")
    return Check("versions", OK, text)


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _java() -> Check:
    java = find_java()
    return Check("java", OK, f"Java {java.version} from {java.source} ({java.home})")


def _disk() -> Check:
    folder = home()
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    text = f"{free / (1 << 30):.1f} GiB free at {folder}"
    if free < FREE_BYTES_MIN:
        return Check("disk", WARNING, text, "make room: brokers stop when their disk is full")
    return Check("disk", OK, text)


def _broker(config: Config) -> Check:
    Topics(config.connection, timeout_s=5.0).check_cluster()
    metadata = Overview(config.connection, timeout_s=5.0).metadata()
    ours = {topic for one in config.streams.values() for topic in (one.topic, one.control_topic, one.dead_topic)}
    lacking = sum(metadata.lacking.get(topic, 0) for topic in ours)
    text = f"{metadata.brokers} at {config.connection.bootstrap}"
    if lacking:
        return Check("broker", WARNING, f"{text}; {lacking} partitions lack a copy", "bring the missing brokers back")
    return Check("broker", OK, text)


def _registry(config: Config) -> Check:
    client = RegistryClient(config.connection, timeout_s=5.0)
    missing = [name for name, stream in config.streams.items() if client.latest(stream.subject) is None]
    text = f"answers at {config.connection.registry}"
    if missing:
        return Check("registry", OK, f"{text}; no schema yet of {', '.join(missing)}")
    return Check("registry", OK, text)


def _stream(config: Config, stream: StreamConfig, topics: Topics) -> Check:
    what = f"stream {stream.name}"
    if topics.describe(stream.control_topic) is None:
        return Check(what, WARNING, "was not created", f"run `headrace stream create {stream.name}`")
    with ControlLog(config.connection, stream, topics) as control:
        shard_map = control.map
    text = f"{len(shard_map.leaves)} open shards, {len(shard_map.places)} of {stream.partitions_max} partitions used"
    if shard_map.pending:
        return Check(what, WARNING, f"{text}; a reshard is pending", "see docs/runbooks/pending-reshard.md")
    if topics.settings(stream.control_topic).get("cleanup.policy") != "compact":
        return Check(what, FAILED, "its control topic is not compacted", f"set cleanup.policy=compact on {stream.control_topic}")
    if len(shard_map.places) > 0.8 * stream.partitions_max:
        return Check(what, WARNING, text, "raise partitions_max before the next splits")
    return Check(what, OK, text)


def _table(config: Config, name: str) -> Check:
    what = f"table {name}"
    if "://" in config.warehouse:
        return Check(what, OK, f"in {config.warehouse}, which is not looked into from here")
    path = Path(config.warehouse) / Path(*name.split("."))
    log = path / "_delta_log"
    if not path.exists():
        return Check(what, OK, "not made yet")
    versions = sorted(int(one.stem) for one in log.glob("*.json") if one.stem.isdigit())
    if not versions:
        return Check(what, FAILED, f"{path} is there and is no Delta table", "move it away, or set another `warehouse:`")
    try:
        lines = (log / f"{versions[-1]:020d}.json").read_text(encoding="utf-8").splitlines()
        any(json.loads(line) for line in lines)
    except (OSError, ValueError) as error:
        return Check(what, FAILED, f"version {versions[-1]} of {path} cannot be read ({type(error).__name__})", "restore its log")
    return Check(what, OK, f"version {versions[-1]}")


def _endpoints() -> Check:
    found = targets.running(home())
    silent = scrape(found).silent
    text = f"{len(found)} endpoints" + (f", of which {', '.join(silent)} do not answer" if silent else "")
    if silent:
        return Check("metrics", WARNING, text, "a process that hangs: look at its log, then restart it")
    return Check("metrics", OK, text)
