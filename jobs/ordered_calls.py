"""Calling a function record by record, on an executor: order checked, state kept, output collected, failures named."""

from __future__ import annotations

import importlib
import json
import re
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from pyspark.sql import Row
from pyspark.sql import types as T
from pyspark.sql.streaming.stateful_processor import StatefulProcessor, StatefulProcessorHandle

from pipeline.errors import ConfigError, HandlerError, HeadraceError, InvariantError

Record = Mapping[str, Any]
Function = Callable[[str, Record, dict[str, Any]], Iterable[Mapping[str, Any]] | None]
Token = tuple[int, int, int]

_ORDER = (("generation", T.IntegerType()), ("offset", T.LongType()), ("index", T.IntegerType()))
LAST = T.StructType([T.StructField(f"_{name}", kind) for name, kind in _ORDER])
"""Beside the user's columns in the state: the order token of the key's last record."""
OUT = T.StructType([T.StructField("_key", T.StringType()), *LAST.fields, T.StructField("_number", T.IntegerType())])
"""Beside the user's columns in the output: the record that a row comes from, and which of its rows it is."""

_MARK = "HEADRACE-ORDERED "


class CallFailed(Exception):
    """What went wrong at which record, as one line of JSON after a mark."""


class Caller(StatefulProcessor):
    """What Spark calls per key and micro-batch with the key's rows: (key, order, record) structs, sorted by order."""

    def __init__(self, function: Function, state: T.StructType, output: Iterable[str]) -> None:
        self.function = function
        self.state = state
        self.state_columns = tuple(state.fieldNames())
        self.output_columns = tuple(output)

    def init(self, handle: StatefulProcessorHandle) -> None:
        self._kept = handle.getValueState("state", T.StructType([*self.state.fields, *LAST.fields]))

    def close(self) -> None:
        """Nothing is held."""

    def handleInputRows(self, key: Any, rows: Iterator[Row], timerValues: Any) -> Iterator[Row]:
        name, count = str(key[0]), len(self.state_columns)
        kept = self._kept.get()
        state = dict(zip(self.state_columns, kept or (None,) * count, strict=False))
        last: Token | None = None if kept is None else (kept[count], kept[count + 1], kept[count + 2])
        make = Row(*self.output_columns, *OUT.fieldNames())
        for row in rows:
            order = row["order"]
            token = (int(order["generation"]), int(order["offset"]), int(order["index"]))
            if last is not None and token <= last:
                raise _failed(name, token, "order", f"it came after {last}")
            for number, found in enumerate(self._outputs(name, token, row["record"], state)):
                yield make(*(found.get(column) for column in self.output_columns), name, *token, number)
            last = token
        if last is not None:
            self._kept.update((*(state.get(column) for column in self.state_columns), *last))

    def _outputs(self, key: str, token: Token, record: Record, state: dict[str, Any]) -> list[Mapping[str, Any]]:
        try:
            found = list(self.function(key, record, state) or ())
        except Exception as error:
            raise _failed(key, token, "raised", _where(error)) from error
        if unknown := sorted(set(state) - set(self.state_columns)):
            raise _failed(key, token, "state", ", ".join(map(str, unknown)))
        for row in found:
            if not isinstance(row, Mapping):
                raise _failed(key, token, "row", type(row).__name__)
            if unknown := sorted(set(row) - set(self.output_columns)):
                raise _failed(key, token, "output", ", ".join(map(str, unknown)))
        return found


def load_function(table: str, named: str | None) -> Function:
    """The function that headrace.yml names. Raises ConfigError where there is none."""
    if named is None:
        raise ConfigError(f"tables.{table}.ordered.function: name one (module:function), or call jobs.ordered.apply with yours")
    module, _, name = named.partition(":")
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise ConfigError(
            f"tables.{table}.ordered.function: there is no {named} ({error}): it has to be importable (PYTHONPATH, --py-files)"
        ) from error
    if not callable(found):
        raise ConfigError(f"tables.{table}.ordered.function: {named} is not a function")
    return found  # type: ignore[no-any-return]


def failed_call(table: str, text: str) -> HeadraceError | None:
    """The error that a CallFailed on an executor means; None where the text has none."""
    found = re.search(re.escape(_MARK) + r"(\{.*?\})" + re.escape(_MARK.strip()), text)
    if found is None:
        return None
    told = json.loads(found[1])
    what, detail = told["what"], told["detail"]
    at = f"{table}: at the record {tuple(told['order'])} of key {told['key']!r}"
    kept = "Nothing of this micro-batch is in the table; the next start goes on with it"
    if what == "order":
        return InvariantError(f"{at}, {detail}, out of order: stop, keep the logs and the bronze table, report it")
    if what == "raised":
        return HandlerError(f"{at} the function raised {detail}: correct it, then start again. {kept}")
    meant = {
        "state": f"the function put {detail} into the state, which `ordered.state` does not name",
        "output": f"the function gave {detail}, which `ordered.output` does not name",
        "row": f"the function gave a {detail} where a dict is expected",
    }[what]
    return HandlerError(f"{at} {meant}. {kept}")


def _failed(key: str, token: Token, what: str, detail: str) -> CallFailed:
    told = json.dumps({"key": key, "order": token, "what": what, "detail": detail})
    return CallFailed(f"{_MARK}{told}{_MARK.strip()}")


def _where(error: Exception) -> str:
    """Type and place, not the text: that may hold the record."""
    frames = traceback.extract_tb(error.__traceback__)
    place = f" ({frames[-1].filename.rpartition('/')[2]}, line {frames[-1].lineno})" if frames else ""
    return f"{type(error).__name__}{place}"
