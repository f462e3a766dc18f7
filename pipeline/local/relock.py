"""Writes jars.lock.json anew (maintainers: `python -m pipeline.local.jars lock`); takes a minute and needs the network."""

from __future__ import annotations

import re
import tempfile
from pathlib import Path

from pipeline.errors import StackError
from pipeline.local.ivy import Coordinates, IvyError, pyspark_jars, retrieve
from pipeline.local.jars import LOCK_FILE, sha256_of
from pipeline.local.java import Java, find_java
from pipeline.local.paths import write_json

# What is asked for; all else follows from it. Spark, Delta and their connectors move together.
ROOTS = {
    "broker": [
        Coordinates("org.apache.kafka", "kafka_2.13", "4.3.1"),
        # Kafka's own archive brings this binding; its pom does not.
        Coordinates("org.apache.logging.log4j", "log4j-slf4j-impl", "2.25.4"),
    ],
    "spark": [
        Coordinates("io.delta", "delta-spark_4.1_2.13", "4.4.0"),
        Coordinates("org.apache.spark", "spark-sql-kafka-0-10_2.13", "4.1.1"),
        Coordinates("org.apache.spark", "spark-avro_2.13", "4.1.1"),
    ],
    # The modules of the AWS SDK that S3A calls, 12 MB: the bundle that hadoop-aws names has 600 MB. Its version is the one
    # that hadoop-aws was built with; hadoop-aws is of the version of pyspark's hadoop-client jars.
    "s3": [
        Coordinates("software.amazon.awssdk", name, "2.29.52")
        for name in ("s3", "s3-transfer-manager", "apache-client", "netty-nio-client", "sts")
    ],
}
# Taken without what their poms name: that is here already, or is the bundle.
ALONE = {
    "s3": [
        Coordinates("org.apache.hadoop", "hadoop-aws", "3.4.2"),
        Coordinates("org.apache.spark", "spark-hadoop-cloud_2.13", "4.1.1"),
    ],
}
# Found by resolving, not needed beside pyspark's own jars: an older Jackson part that would meet Spark's newer ones, what
# Spark has under another name (jcl-over-slf4j, RoaringBitmap with its shims), and annotations of a generated client.
NOT_FOR_SPARK = {"jackson-datatype-jdk8", "commons-logging", "shims", "javax.annotation-api"}


def relock() -> dict[str, int]:
    """Resolve ROOTS, hash every jar, write the lock; returns how many jars each group has."""
    java = find_java()
    content = {group: _resolve(java, group, roots) for group, roots in ROOTS.items()}
    write_json(LOCK_FILE, content)
    return {group: len(jars) for group, jars in content.items()}


def _resolve(java: Java, group: str, roots: list[Coordinates]) -> list[dict[str, str]]:
    with tempfile.TemporaryDirectory(prefix="headrace-lock-") as folder:
        try:
            found = retrieve(java, roots, Path(folder) / "resolved", transitive=True)
            if group in ALONE:
                found |= retrieve(java, ALONE[group], Path(folder) / "alone", transitive=False)
        except IvyError as error:
            raise StackError(
                f"the jars of {group} were not resolved ({error}): connect to the network, then try again"
            ) from error
        present = set() if group == "broker" else (_names(pyspark_jars()) | NOT_FOR_SPARK)
        return [
            {"org": one.org, "name": one.name, "version": one.version, "sha256": sha256_of(path)}
            for one, path in sorted(found.items())
            if one.name not in present
        ]


def _names(folder: Path) -> set[str]:
    """Names without versions: ``lz4-java`` of ``lz4-java-1.8.0.jar``."""
    return {re.sub(r"-\d[^/]*$", "", jar.stem) for jar in folder.glob("*.jar")}
