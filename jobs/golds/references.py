"""Reference tables: static files of headrace.yml that gold joins with."""

from __future__ import annotations

from pathlib import Path

from pyspark.sql import DataFrame, SparkSession

from pipeline.config import Config
from pipeline.errors import ConfigError


def read_reference(spark: SparkSession, config: Config, name: str) -> DataFrame:
    """A reference as it is now. Raises ConfigError where there is no such file."""
    path = config.references[name]
    if not path.exists():
        raise ConfigError(f"references.{name}: there is no {path}")
    if path.suffix == ".parquet" or path.is_dir():
        return spark.read.parquet(str(path))
    return spark.read.csv(str(path), header=True, inferSchema=True, nullValue="NA" if _has_na(path) else "")


def stamp(path: Path) -> list[int]:
    """Differs once a file was written again."""
    found = path.stat() if path.exists() else None
    return [found.st_size, found.st_mtime_ns] if found else []


def _has_na(path: Path) -> bool:
    """R writes NA for what is missing; a column of numbers would else be read as text."""
    with path.open(encoding="utf-8", errors="replace") as file:
        return any(",NA," in line or line.rstrip().endswith(",NA") for line in file)
