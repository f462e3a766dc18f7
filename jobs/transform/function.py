"""A Python function as a step: it gets the micro-batch as a DataFrame and gives one back."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence

from pyspark.errors import AnalysisException
from pyspark.sql import DataFrame

from pipeline.errors import ConfigError, HeadraceError, StopError

Function = Callable[[DataFrame], DataFrame]


def load(name: str, where: str) -> Function:
    """The function that ``module:function`` names. Raises ConfigError, beginning with ``where``."""
    module, _, attribute = name.partition(":")
    try:
        found = getattr(importlib.import_module(module), attribute, None)
    except Exception as error:
        detail = f"{type(error).__name__}: {error}"
        raise ConfigError(f"{where}: {module} cannot be imported ({detail}): is it on PYTHONPATH?") from error
    if not callable(found):
        raise ConfigError(f"{where}: {module} has no function {attribute!r}")
    function: Function = found
    return function


def call(function: Function, rows: DataFrame, own: Sequence[str], where: str) -> DataFrame:
    """What the function makes of ``rows``. Raises ConfigError where it does not give back a DataFrame with our columns,
    StopError with what it raised itself."""
    try:
        out = function(rows)
    except (HeadraceError, AnalysisException):
        raise
    except Exception as error:
        raise StopError(f"{where} raised {type(error).__name__}: {error}") from error
    if not isinstance(out, DataFrame):
        raise ConfigError(f"{where} gave back {type(out).__name__}: expected a DataFrame")
    for name in own:
        if name not in out.columns or out.schema[name].dataType != rows.schema[name].dataType:
            raise ConfigError(f"{where} has lost or changed the column {name}: rows need it to be put in order, keep it")
    return out
