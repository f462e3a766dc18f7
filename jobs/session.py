"""The SparkSession of every job: a local one made here, or the submitter's under spark-submit.

Locally, the jars that pyspark lacks come from the verified cache (pipeline.local.jars) and Java from pipeline.local.java.
Under spark-submit, master, memory and jars are the submitter's; what can still be set from here is.
"""

from __future__ import annotations

import atexit
import logging
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

from pyspark.sql import SparkSession

from pipeline.errors import ConfigError
from pipeline.local.jars import ensure
from pipeline.local.java import spark_java_home

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
    # Delta's log is the only catalog: nobody asks for Spark's table statistics.
    "spark.sql.statistics.size.autoUpdate.enabled": "false",
    "spark.sql.streaming.metricsEnabled": "false",
    # A version can be read for as long as its files are there. Delta would refuse after a week, whatever VACUUM left: a job
    # that begins again from an older commit, an audit, a restore.
    "spark.databricks.delta.vacuum.enforceTimeTravelWithinDeletedFileRetentionDuration": "false",
}

# A third of the processor time of a small query that is run once goes into compiling and planning it stage by stage.
_INTERPRETED = {
    "spark.sql.codegen.wholeStage": "false",
    "spark.sql.codegen.factoryMode": "NO_CODEGEN",
    "spark.sql.adaptive.enabled": "false",
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
) -> SparkSession:
    """The session to run jobs in; the caller stops it.

    ``cores`` and ``memory`` (of the one local JVM) default to 2 and 1536m and hold for a local Spark only. With
    ``log_file``, everything that Spark logs (warnings and worse) goes there and nothing to the terminal; else errors go to
    standard error. ``short`` is for many small queries, each run once or twice: nothing is compiled that will not be run
    often. Raises StackError (no Java, no jars) or ConfigError (submitted without the jars it needs).
    """
    for noisy in ("DataFrameQueryContextLogger", "SQLQueryContextLogger"):
        logging.getLogger(noisy).disabled = True  # prints a page of JSON for every error, which is raised as well
    if (active := SparkSession.getActiveSession()) is not None:
        return active
    builder = SparkSession.builder.appName(app)
    for key, value in _COMMON.items():
        builder = builder.config(key, value)
    if is_submitted():
        return _submitted(builder)
    return _local(builder, cores or CORES_DEFAULT, memory or MEMORY_DEFAULT, log_file, short)


def is_submitted() -> bool:
    """Whether spark-submit started this process: then a JVM with its settings is there already."""
    return "PYSPARK_GATEWAY_PORT" in os.environ


def _submitted(builder: Any) -> SparkSession:
    spark: SparkSession = builder.getOrCreate()
    jvm = spark._jvm
    assert jvm is not None
    for key, value in AVRO_LIMITS.items():  # the driver's; for executors: --conf spark.executor.extraJavaOptions
        jvm.java.lang.System.setProperty(key, value)
    for name, class_name in (
        ("io.delta:delta-spark_4.1_2.13:4.4.0", "io.delta.sql.DeltaSparkSessionExtension"),
        ("org.apache.spark:spark-sql-kafka-0-10_2.13:4.1.1", "org.apache.spark.sql.kafka010.KafkaSourceProvider"),
        ("org.apache.spark:spark-avro_2.13:4.1.1", "org.apache.spark.sql.avro.AvroDataToCatalyst"),
    ):
        try:
            jvm.org.apache.spark.util.Utils.classForName(class_name, True, True)
        except Exception as error:
            raise ConfigError(f"spark-submit was called without {name}: add it to --packages, or its jars to --jars") from error
    return spark


def _local(builder: Any, cores: int, memory: str, log_file: Path | None, short: bool) -> SparkSession:
    jars = os.pathsep.join(str(jar) for jar in ensure("spark"))
    scratch = Path(tempfile.mkdtemp(prefix="headrace-spark-"))
    atexit.register(shutil.rmtree, scratch, ignore_errors=True)
    log4j = scratch / "log4j2.properties"
    log4j.write_text(_log4j(log_file), encoding="utf-8")
    limits = " ".join(f"-D{key}={value}" for key, value in AVRO_LIMITS.items())
    options = f"{limits} -Dlog4j2.configurationFile={log4j.as_uri()} -Dderby.system.home={scratch} -XX:+UseParallelGC"
    if short:  # half of the processor time of a first minute goes into the second compiler
        options += " -XX:TieredStopAtLevel=1 -XX:ReservedCodeCacheSize=256m"
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
        "spark.local.dir": str(scratch / "local"),
        "spark.sql.warehouse.dir": str(scratch / "warehouse"),
        "spark.sql.shuffle.partitions": str(2 * cores),
        "spark.sql.codegen.cache.maxEntries": "500",
        "spark.python.use.daemon": "true",
    }
    for key, value in (settings | (_INTERPRETED if short else {})).items():
        builder = builder.config(key, value)
    before = os.environ.get("JAVA_HOME")
    os.environ["JAVA_HOME"] = str(spark_java_home())
    try:
        spark: SparkSession = builder.getOrCreate()
        return spark
    finally:  # the rest of this process keeps the Java it had
        if before is None:
            del os.environ["JAVA_HOME"]
        else:
            os.environ["JAVA_HOME"] = before


def _log4j(log_file: Path | None) -> str:
    if log_file is None:
        return _LOG4J.format(level="error", kind="Console", target="appender.out.target = SYSTEM_ERR")
    log_file.parent.mkdir(parents=True, exist_ok=True)
    return _LOG4J.format(level="warn", kind="File", target=f"appender.out.fileName = {log_file}")
