"""The SparkSession of every job: a local one made here, or the submitter's under spark-submit.

Locally, the jars that pyspark lacks come from the verified cache (pipeline.local.jars) and Java from pipeline.local.java.
Under spark-submit, master, memory and jars are the submitter's; what can still be set from here is.
"""

from __future__ import annotations

import atexit
import logging
import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from pyspark import SparkConf, SparkContext
from pyspark.sql import SparkSession

from jobs import object_store
from pipeline.errors import ConfigError
from pipeline.local.jars import ensure
from pipeline.local.java import spark_java_home

log = logging.getLogger("headrace.jobs")

CORES_DEFAULT = 2
MEMORY_DEFAULT = "1536m"

# One hostile count or length in a message must not take the JVM's memory (DESIGN.md §6). The largest aggregate that the
# configuration allows has 1,000,000 records and 64 MiB.
AVRO_LIMITS = {
    "org.apache.avro.limits.collectionItems.maxLength": "1000000",
    "org.apache.avro.limits.bytes.maxLength": str(64 * 1024 * 1024),
    "org.apache.avro.limits.string.maxLength": str(64 * 1024 * 1024),
}

_COMMON = {
    "spark.sql.extensions": "io.delta.sql.DeltaSparkSessionExtension",
    "spark.sql.catalog.spark_catalog": "org.apache.spark.sql.delta.catalog.DeltaCatalog",
    "spark.sql.session.timeZone": "UTC",
    # The state of our tables' logs is small; 50 tasks for it (the default) cost more than every micro-batch's own work.
    "spark.databricks.delta.snapshotPartitions": "2",
    # The default is INT96, an old form that costs a tenth of a bronze write; every reader of Delta knows this one.
    "spark.sql.parquet.outputTimestampType": "TIMESTAMP_MICROS",
    # Delta's log is the only catalog: nobody asks for Spark's table statistics.
    "spark.sql.statistics.size.autoUpdate.enabled": "false",
    "spark.sql.streaming.metricsEnabled": "false",
    # For its errors, Spark notes where each column was made: PySpark by five calls more for one, the JVM by a stack trace, which
    # travels to the tasks with it.
    "spark.python.sql.dataFrameDebugging.enabled": "false",
    "spark.sql.dataFrameQueryContext.enabled": "false",
    # The state of ordered tables: on disk, with what changed per micro-batch; the default keeps every key in memory.
    "spark.sql.streaming.stateStore.providerClass": "org.apache.spark.sql.execution.streaming.state.RocksDBStateStoreProvider",
    "spark.sql.streaming.stateStore.rocksdb.changelogCheckpointing.enabled": "true",
    # A version can be read for as long as its files are there. Delta would refuse after a week, whatever VACUUM left: a job
    # that begins again from an older commit, an audit, a restore.
    "spark.databricks.delta.vacuum.enforceTimeTravelWithinDeletedFileRetentionDuration": "false",
}

# The defaults rename through Hadoop's FileContext, which on a local disk starts a process (`readlink`) eight times for each file:
# 32 times for a micro-batch. These look, then rename, as it does; the log's also keeps threads apart.
_ON_DISK = {
    "spark.delta.logStore.file.impl": "io.delta.storage.LocalLogStore",
    "spark.sql.streaming.checkpointFileManagerClass": (
        "org.apache.spark.sql.execution.streaming.checkpointing.FileSystemBasedCheckpointFileManager"
    ),
}

# Half of the processor time of a first minute goes into the second compiler.
QUICK_COMPILER = "-XX:TieredStopAtLevel=1 -XX:ReservedCodeCacheSize=256m"

# A third of the processor time of a small query that is run once goes into compiling and planning it stage by stage.
SHORT = {
    "spark.sql.codegen.wholeStage": "false",
    "spark.sql.codegen.factoryMode": "NO_CODEGEN",
    "spark.sql.adaptive.enabled": "false",
    # A task costs 20 ms before it has read a row.
    "spark.sql.shuffle.partitions": "2",
    "spark.databricks.delta.snapshotPartitions": "1",
}

_LOG4J = """\
rootLogger.level = {level}
rootLogger.appenderRef.out.ref = out
appender.out.type = {kind}
appender.out.name = out
{target}
appender.out.layout.type = PatternLayout
appender.out.layout.pattern = %d{{yyyy-MM-dd HH:mm:ss.SSS}} %p %c{{1}}: %m%n%ex
"""


def spark_session(
    app: str = "headrace",
    *,
    cores: int | None = None,
    memory: str | None = None,
    log_file: Path | None = None,
    short: bool = False,
    warehouse: str = "",
) -> SparkSession:
    """The session to run jobs in; the caller stops it.

    ``cores`` and ``memory`` (of the one local JVM) default to 2 and 1536m and hold for a local Spark only. With
    ``log_file``, everything that Spark logs (warnings and worse) goes there and nothing to the terminal; else errors go to
    standard error. ``short`` is for many small queries, each run once or twice: nothing is compiled that will not be run
    often. A ``warehouse`` on S3 brings s3a's jars and settings. Raises StackError (no Java, no jars) or ConfigError
    (submitted without the jars it needs).
    """
    for noisy in ("DataFrameQueryContextLogger", "SQLQueryContextLogger"):
        logging.getLogger(noisy).disabled = True  # prints a page of JSON for every error, which is raised as well
    if (active := SparkSession.getActiveSession()) is not None:
        return active
    builder = SparkSession.builder.appName(app)
    for key, value in _COMMON.items():
        builder = builder.config(key, value)
    on_s3 = object_store.is_object_store(warehouse)
    if is_submitted():
        return _prepared(_submitted(builder, on_s3))
    for key, value in (object_store.settings(os.environ) if on_s3 else _ON_DISK).items():
        builder = builder.config(key, value)
    jars = [*ensure("spark"), *(ensure("s3") if on_s3 else ())]
    return _prepared(_local(builder, jars, cores or CORES_DEFAULT, memory or MEMORY_DEFAULT, log_file, short))


def is_submitted() -> bool:
    """Whether spark-submit started this process: then a JVM with its settings is there already."""
    return "PYSPARK_GATEWAY_PORT" in os.environ


def _prepared(spark: SparkSession) -> SparkSession:
    jvm: Any = spark._jvm
    # Standard output is the command's own, for its JSON or table; VACUUM prints a line of its own there.
    system = jvm.java.lang.System
    system.setOut(system.err)
    for name in _ASKED_OFTEN:
        found = getattr(jvm, name)  # a session before this one may have had it
        setattr(jvm, name, found if isinstance(found, _Members) else _Members(found))
    return spark


# Where PySpark looks up every function of a column, and what it passes lists by.
_ASKED_OFTEN = ("org.apache.spark.sql.functions", "functions", "PythonUtils")


class _Members:
    """A JVM class whose methods are looked up once. PySpark asks the JVM for the class and for the method each time, which goes
    through every jar: half of the time that a micro-batch's columns take to make."""

    def __init__(self, java_class: Any) -> None:
        self._java_class = java_class

    def __getattr__(self, name: str) -> Any:
        member = getattr(self._java_class, name)
        setattr(self, name, member)
        return member


_EXECUTOR_OPTIONS = "spark.executor.extraJavaOptions"
_NEEDED = {
    "io.delta:delta-spark_4.1_2.13:4.4.0": "io.delta.sql.DeltaSparkSessionExtension",
    "org.apache.spark:spark-sql-kafka-0-10_2.13:4.1.1": "org.apache.spark.sql.kafka010.KafkaSourceProvider",
    "org.apache.spark:spark-avro_2.13:4.1.1": "org.apache.spark.sql.avro.AvroDataToCatalyst",
}
_NEEDED_ON_S3 = {"org.apache.hadoop:hadoop-aws:3.4.2": object_store.FILE_SYSTEM}


def _submitted(builder: Any, on_s3: bool) -> SparkSession:
    SparkContext._ensure_initialized()
    jvm = SparkContext._jvm
    assert jvm is not None
    for name, class_name in (_NEEDED | (_NEEDED_ON_S3 if on_s3 else {})).items():
        if not _has(jvm, class_name):
            raise ConfigError(f"spark-submit was called without {name}: add it to --packages, or its jars to --jars")
    submitted = SparkConf()
    if on_s3:
        found = object_store.settings(os.environ)
        if not _has(jvm, object_store.CHECKPOINTS):
            log.warning("without spark-hadoop-cloud among the jars, Spark checkpoints on S3 are copied into place: slower")
            found = {key: value for key, value in found.items() if value != object_store.CHECKPOINTS}
        for key, value in found.items():  # what the submitter set wins
            builder = builder.config(key, submitted.get(key, value))
    # Executors are started after this, with the limits in their command line.
    builder = builder.config(_EXECUTOR_OPTIONS, f"{_limits()} {submitted.get(_EXECUTOR_OPTIONS, '')}".strip())
    for key, value in AVRO_LIMITS.items():
        jvm.java.lang.System.setProperty(key, value)
    spark: SparkSession = builder.getOrCreate()
    return spark


def _has(jvm: Any, class_name: str) -> bool:
    try:
        jvm.org.apache.spark.util.Utils.classForName(class_name, False, True)
    except Exception:  # noqa: BLE001 - py4j's own, of any kind
        return False
    return True


def _limits() -> str:
    return " ".join(f"-D{key}={value}" for key, value in AVRO_LIMITS.items())


def _local(builder: Any, found: list[Path], cores: int, memory: str, log_file: Path | None, short: bool) -> SparkSession:
    jars = os.pathsep.join(str(jar) for jar in found)
    scratch = Path(tempfile.mkdtemp(prefix="headrace-spark-"))
    atexit.register(shutil.rmtree, scratch, ignore_errors=True)
    log4j = scratch / "log4j2.properties"
    log4j.write_text(_log4j(log_file), encoding="utf-8")
    limits = _limits()
    options = f"{limits} -Dlog4j2.configurationFile={log4j.as_uri()} -Dderby.system.home={scratch} -XX:+UseParallelGC"
    options += " -Djdk.lang.Process.launchMechanism=VFORK"  # Hadoop starts `chmod` for every file that it writes
    if short:
        options += f" {QUICK_COMPILER}"
    settings = {
        "spark.master": f"local[{cores}]",
        "spark.driver.memory": memory,
        "spark.driver.extraClassPath": jars,
        "spark.driver.extraJavaOptions": options,
        "spark.executor.extraClassPath": jars,
        "spark.executor.extraJavaOptions": limits,
        "spark.driver.host": "127.0.0.1",
        "spark.driver.bindAddress": "127.0.0.1",
        "spark.ui.enabled": "false",
        "spark.ui.showConsoleProgress": "false",
        # Every query's plan is written out for the user interface, which is off; this is the cheapest form.
        "spark.sql.ui.explainMode": "simple",
        "spark.sql.maxPlanStringLength": "0",
        "spark.local.dir": str(scratch / "local"),
        "spark.sql.warehouse.dir": str(scratch / "warehouse"),
        "spark.sql.shuffle.partitions": str(2 * cores),
        "spark.sql.codegen.cache.maxEntries": "500",
        "spark.python.use.daemon": "true",
    }
    for key, value in (settings | (SHORT if short else {})).items():
        builder = builder.config(key, value)
    wanted = {"JAVA_HOME": str(spark_java_home()), "PYSPARK_PYTHON": os.environ.get("PYSPARK_PYTHON") or sys.executable}
    before = {name: os.environ.get(name) for name in wanted}
    os.environ.update(wanted)
    try:
        spark: SparkSession = builder.getOrCreate()
        return spark
    finally:  # the rest of this process keeps the Java it had
        for name, old in before.items():
            if old is None:
                del os.environ[name]
            else:
                os.environ[name] = old


def _log4j(log_file: Path | None) -> str:
    if log_file is None:
        return _LOG4J.format(level="error", kind="Console", target="appender.out.target = SYSTEM_ERR")
    log_file.parent.mkdir(parents=True, exist_ok=True)
    return _LOG4J.format(level="warn", kind="File", target=f"appender.out.fileName = {log_file}")
