"""Small files beside tables (Delta logs, Spark checkpoints) on whatever the warehouse is: a folder here, or s3a.

Everything goes through Hadoop's FileSystem in the JVM, so that credentials and schemes are the session's own.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from py4j.protocol import Py4JJavaError
from pyspark.sql import SparkSession

from jobs.object_store import explained, is_object_store
from pipeline.errors import TableError

PIECE_BYTES, PIECES_MAX = 6_000, 40


def read_bytes(spark: SparkSession, path: str) -> bytes | None:
    """The whole of a small file; None when there is none."""
    with explained(path):
        return _read(spark, path)


def _read(spark: SparkSession, path: str) -> bytes | None:
    file_system, at = _at(spark, path)
    if not file_system.exists(at):  # most often so, and an exception costs 50 ms on its way through Py4J
        return None
    try:
        stream = file_system.open(at)
    except Exception as error:
        if "FileNotFoundException" in str(error):
            return None
        raise
    try:
        return b"".join(_parts(stream))
    except Exception as error:
        if "ChecksumException" in str(error):
            raise TableError(f"{path} is damaged (its checksum differs): restore it from a backup, or move it away") from error
        raise
    finally:
        stream.close()


def _parts(stream: Any) -> Iterator[bytes]:
    """What a stream holds. What Py4J cannot write in one go (8 KiB, in Base64) waits 40 ms for the network to acknowledge, so the
    files of a Delta log come in pieces; one that is larger than most is worth the wait."""
    for _ in range(PIECES_MAX):
        piece = bytes(stream.readNBytes(PIECE_BYTES))
        yield piece
        if len(piece) < PIECE_BYTES:
            return
    yield bytes(stream.readAllBytes())


def read_text(spark: SparkSession, path: str) -> str | None:
    """The whole of a small UTF-8 file; None when there is none."""
    data = read_bytes(spark, path)
    return None if data is None else data.decode("utf-8")


def write_text(spark: SparkSession, path: str, text: str) -> None:
    """Write a small file as a whole; an older one is replaced."""
    with explained(path):
        _write(spark, path, text)


def _write(spark: SparkSession, path: str, text: str) -> None:
    file_system, at = _at(spark, path)
    if is_object_store(path):  # an object appears whole when its stream is closed, and a rename there is a copy
        stream = file_system.create(at, True)
        stream.write(text.encode("utf-8"))
        stream.close()
        return
    partial = _java_class(spark, "org.apache.hadoop.fs.Path")(f"{path}.partial")
    stream = file_system.create(partial, True)
    try:
        stream.write(text.encode("utf-8"))
    finally:
        stream.close()
    file_system.delete(at, False)
    file_system.rename(partial, at)


def create_text(spark: SparkSession, path: str, text: str) -> bool:
    """Create a small object on S3 that is not there yet; False where it is: of several who try, one succeeds."""
    with explained(path):
        file_system, at = _at(spark, path)
        builder = file_system.createFile(at).create().recursive().must("fs.option.create.conditional.overwrite", "true")
        stream = builder.build()
        stream.write(text.encode("utf-8"))
        try:
            stream.close()
        except Py4JJavaError as error:
            if "Status Code: 412" in str(error) or "Status Code: 409" in str(error):
                return False
            raise
    return True


def names(spark: SparkSession, folder: str) -> list[str]:
    """The names in a folder, sorted; none when there is no such folder."""
    with explained(folder):
        file_system, at = _at(spark, folder)
        if not file_system.exists(at):
            return []
        # As one text: a Delta log has thousands of files, and to ask each for its name takes Python a fifth of a millisecond.
        # Of an array of paths, since of one alone S3 gives an array of its own class, which Py4J takes for another one.
        folders = spark.sparkContext._gateway.new_array(_java_class(spark, "org.apache.hadoop.fs.Path"), 1)  # type: ignore[union-attr]
        folders[0] = at
        paths = _java_class(spark, "org.apache.hadoop.fs.FileUtil").stat2Paths(file_system.listStatus(folders))
        text: str = _java_class(spark, "org.apache.commons.lang3.ArrayUtils").toString(paths)
        whole = at.makeQualified(file_system.getUri(), file_system.getWorkingDirectory()).toString()
        inside = f"{whole.rstrip('/')}/"
        return sorted(text[len("{") + len(inside) : -len("}")].split(f",{inside}")) if text != "{}" else []


def exists(spark: SparkSession, path: str) -> bool:
    """Whether there is a file or folder."""
    with explained(path):
        file_system, at = _at(spark, path)
        return bool(file_system.exists(at))


def has_entries(spark: SparkSession, folder: str) -> bool:
    """Whether there is a folder with something in it."""
    with explained(folder):
        file_system, at = _at(spark, folder)
        return bool(file_system.exists(at) and file_system.listStatusIterator(at).hasNext())


def check_reachable(spark: SparkSession, warehouse: str) -> None:
    """Raises TableError (keys, bucket) or RetryableError (no answer) where a warehouse on S3 cannot be used."""
    if not is_object_store(warehouse):
        return
    with explained(warehouse):
        file_system, at = _at(spark, warehouse)
        try:  # by a listing: its answer says why, a request for one object only that it is forbidden
            file_system.listStatusIterator(at).hasNext()
        except Py4JJavaError as error:
            if error.java_exception.getClass().getSimpleName() != "FileNotFoundException":
                raise


def move(spark: SparkSession, path: str, to: str) -> None:
    """Rename a file or folder. Raises TableError where something is at ``to`` already."""
    file_system, at = _at(spark, path)
    target = _java_class(spark, "org.apache.hadoop.fs.Path")(to)
    if file_system.exists(target) or not file_system.rename(at, target):
        raise TableError(f"{path} could not be moved to {to}: is something there already?")


def remove(spark: SparkSession, path: str) -> None:
    """Remove a small file or an empty folder; one that is not there is fine."""
    file_system, at = _at(spark, path)
    file_system.delete(at, False)


def _at(spark: SparkSession, path: str) -> tuple[Any, Any]:
    at = _java_class(spark, "org.apache.hadoop.fs.Path")(path)
    return at.getFileSystem(spark._jsc.hadoopConfiguration()), at


def _java_class(spark: SparkSession, name: str) -> Any:
    """By its whole name: `jvm.org.apache…` asks the JVM, through all its jars, whether there is a class `org`, `org.apache`, …"""
    return getattr(spark._jvm, name)
