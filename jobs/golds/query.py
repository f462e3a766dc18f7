"""The query of a gold table: a file of SQL, or a Python function on DataFrames.

It only reads: Spark's own parser says so before it runs, and it sees the tables of ``from:`` and ``references:`` and no others,
for nobody would refresh it when another one changes.
"""

from __future__ import annotations

import hashlib
import importlib
import inspect
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from pyspark.errors import AnalysisException, ParseException
from pyspark.sql import DataFrame, SparkSession

from pipeline.config import Config, TableConfig
from pipeline.errors import ConfigError, TableError

# A name is replaced outside of texts and comments only; what follows a dot is a column's or another catalog's.
_SQL_PART = re.compile(
    r"'(?:[^'\\]|\\.|'')*'|\"(?:[^\"\\]|\\.)*\"|`[^`]*`|--[^\n]*|/\*.*?\*/|(?<![\w.])(?:bronze|silver|gold|reference)\.[A-Za-z]\w*",
    re.DOTALL,
)
Views = Mapping[str, DataFrame]


class Query:
    """What makes a table's rows from DataFrames. ``digest`` changes with the query."""

    def __init__(self, spark: SparkSession, config: Config, table: TableConfig) -> None:
        self._spark, self._table = spark, table
        self._known = {*table.sources, *(f"reference.{name}" for name in config.references)}
        self._function = _function(config, table) if table.python else None
        self._text = "" if table.python else _read(table)
        self._view_text = with_views(self._text, self._known, table.name)
        if self._function is None:
            check_reads_only(spark, self._view_text, table)
        source = inspect.getsource(inspect.getmodule(self._function)) if self._function else self._text  # type: ignore[arg-type]
        self.digest = hashlib.sha256(source.encode()).hexdigest()

    def rows(self, views: Views) -> DataFrame:
        """The rows over these tables, by name (``silver.flights``, ``reference.planes``). Raises TableError where they lack a
        column, or the query does not fit them otherwise."""
        try:
            if self._function is not None:
                return self._called(self._function, views)
            for name in self._named(views):
                views[name].createOrReplaceTempView(_view(name))
            return self._spark.sql(self._view_text)
        except (AnalysisException, ParseException) as error:
            raise TableError(f"{self.what}: the query of {self._table.name} does not fit its tables: {_first(error)}") from error

    @property
    def what(self) -> str:
        """The file or function, for messages."""
        return self._table.python or str(self._table.sql)

    def _named(self, views: Views) -> list[str]:
        return [name for name in views if _view(name) in self._view_text]

    def _called(self, function: Callable[[Views], Any], views: Views) -> DataFrame:
        try:
            rows = function(views)
        except KeyError as error:
            raise TableError(f"{self.what} asks for table {error}; {self._table.name} has: {', '.join(views)}") from error
        if not isinstance(rows, DataFrame):
            raise TableError(f"{self.what} gave {type(rows).__name__} for {self._table.name}: it has to return a DataFrame")
        return rows


class LazyViews(Mapping[str, DataFrame]):
    """Tables by name, read when they are first asked for; ``used`` are those that were."""

    def __init__(self, readers: Mapping[str, Callable[[], DataFrame]]) -> None:
        self._readers, self._read = readers, dict[str, DataFrame]()

    def __getitem__(self, name: str) -> DataFrame:
        if name not in self._read:
            self._read[name] = self._readers[name]()
        return self._read[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._readers)

    def __len__(self) -> int:
        return len(self._readers)

    @property
    def used(self) -> list[str]:
        return sorted(self._read)


def with_views(text: str, known: set[str], table: str) -> str:
    """The query with every ``silver.flights`` replaced by the view that stands for it. Raises TableError for a table that the
    gold table does not name in ``from`` (or ``references``): it would not be refreshed when that one changes."""

    def view(match: re.Match[str]) -> str:
        found = match.group(0)
        if found[0] in "'\"`-/":
            return found
        if found not in known:
            raise TableError(_not_named(table, found))
        return _view(found)

    return _SQL_PART.sub(view, text)


def check_reads_only(spark: SparkSession, text: str, table: TableConfig) -> None:
    """Raises ConfigError for SQL that is not one query: it would write, or change the session, each time that gold runs."""
    session: Any = spark._jsparkSession
    try:
        plan = session.sessionState().sqlParser().parsePlan(text)
    except Exception as error:  # py4j's own, or pyspark's for a ParseException
        raise TableError(f"{table.sql}: the query of {table.name} does not fit its tables: {_first(error)}") from error
    for node in _nodes(plan):
        kind = node.nodeName()
        interfaces = {one.getSimpleName() for one in _classes(node.getClass())}
        if interfaces & {"Command", "ParsedStatement", "InsertIntoStatement", "UnresolvedExecuteImmediate", "CompoundBody"}:
            raise ConfigError(
                f"{table.sql}: the query of {table.name} may only read, and it has {_spoken(kind)}: Headrace itself writes the "
                "result. Leave one SELECT"
            )
        if kind == "UnresolvedRelation" and "." in (name := node.tableName().replace("`", "")):
            raise TableError(_not_named(table.name, name))


def _not_named(table: str, found: str) -> str:
    return f"the query of {table} reads {found}, which is not in its `from:` (or `references:`): add it there"


def _nodes(plan: Any) -> Iterator[Any]:
    yield plan
    for below in (plan.children(), plan.subqueries()):
        for at in range(below.size()):
            yield from _nodes(below.apply(at))
    if plan.nodeName() == "UnresolvedWith":
        relations = plan.cteRelations()
        for at in range(relations.size()):
            yield from _nodes(relations.apply(at)._2())


def _classes(kind: Any) -> Iterator[Any]:
    while kind is not None:
        yield kind
        for one in kind.getInterfaces():
            yield from _classes(one)
        kind = kind.getSuperclass()


def _spoken(kind: str) -> str:
    """``InsertIntoStatement`` as INSERT INTO."""
    words = re.findall(r"[A-Z][a-z]+", kind.removesuffix("Statement").removesuffix("Command"))
    return " ".join(words).upper() or kind


def _view(name: str) -> str:
    return f"headrace_{name.replace('.', '_')}"


def _read(table: TableConfig) -> str:
    assert table.sql is not None
    try:
        return table.sql.read_text("utf-8").strip().rstrip(";")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"tables.{table.name}.sql: {table.sql} cannot be read: {error}") from error


def _function(config: Config, table: TableConfig) -> Callable[[Views], Any]:
    module, _, name = (table.python or "").partition(":")
    where = f"tables.{table.name}.python: {table.python}"
    if (base := str(config.base)) not in sys.path:
        sys.path.insert(0, base)
    try:
        found = getattr(importlib.import_module(module), name)
    except ImportError as error:
        raise ConfigError(f"{where} cannot be imported from {base} or the packages there are: {error}") from error
    except AttributeError as error:
        raise ConfigError(f"{where}: module {module} has no {name}") from error
    except Exception as error:
        raise ConfigError(f"{where}: importing {module} raised {type(error).__name__}: {error}") from error
    if not callable(found):
        raise ConfigError(f"{where} is a {type(found).__name__}: name a function that takes the tables and returns a DataFrame")
    return found  # type: ignore[no-any-return]


def _first(error: BaseException) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)[:600]
