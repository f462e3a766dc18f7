"""SQL that users write in headrace.yml: checked before any row is read, and evaluated so that one bad row fails alone.

Spark's ANSI mode raises where a cast, a division or an index cannot be done, and with it the whole micro-batch would fail, on
every try. ``attempt`` evaluates an expression with Spark's own ``TryEval``: an exception becomes a null of a row.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pyspark.errors import AnalysisException, ParseException, PySparkException
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F

from pipeline.errors import ConfigError

VALUE = "value"
_CLOCKS = {"CurrentDate", "CurrentTime", "CurrentTimestamp", "LocalTimestamp", "Now"}


def attempt(spark: SparkSession, text: str, where: str, alive: Column) -> Column:
    """A struct with the field ``value``, or null where the expression raised (or ``alive`` is false).

    ``alive`` has to depend on the row, so that it is not known before: only inside a branch that may not be taken does Spark
    leave an expression where it is. Elsewhere it would compute one that occurs twice beforehand, outside of the try. Raises
    ConfigError beginning with ``where`` for SQL that does not parse.
    """
    jvm: Any = spark._jvm
    parsed = _parse(spark, f"named_struct('{VALUE}', ({text}\n))", text, where)
    tried = jvm.org.apache.spark.sql.catalyst.expressions.TryEval(parsed)
    return F.when(alive, Column(jvm.org.apache.spark.sql.classic.ExpressionUtils.column(tried)))


def check_condition(rows: DataFrame, text: str, where: str) -> None:
    """Raises ConfigError, beginning with ``where``, where ``text`` is not a condition over ``rows`` that gives the same answer
    each time it is asked, and that depends on the row."""
    _parse(rows.sparkSession, text, text, where)
    try:
        condition = rows.select(F.expr(text).alias(VALUE))
    except AnalysisException as error:
        raise ConfigError(f"{where}: {text!r} does not fit the columns ({', '.join(rows.columns)}): {reason(error)}") from error
    kind = condition.schema[VALUE].dataType.simpleString()
    if kind != "boolean":
        raise ConfigError(f"{where}: {text!r} is {kind}: expected a condition, which is true or false")
    analyzed: Any = condition._jdf.queryExecution().analyzed()
    expression = analyzed.projectList().apply(0)
    if not expression.deterministic() or _CLOCKS & {_name(one) for one in _walk(expression)}:
        raise ConfigError(
            f"{where}: {text!r} gives another answer each time it is asked, and a micro-batch may be judged twice: compare with "
            "_meta.ingested_at, not with the clock"
        )
    if expression.references().isEmpty():
        raise ConfigError(f"{where}: {text!r} looks at no column: it holds for every row or for none")


def check_expression(spark: SparkSession, text: str, where: str) -> None:
    """Raises ConfigError where ``text`` does not parse."""
    _parse(spark, text, text, where)


def check_query(spark: SparkSession, text: str, where: str) -> None:
    """Raises ConfigError where ``text`` is not a query that only reads. It is parsed, never run: Spark runs a statement that
    writes as soon as it is asked for its columns."""
    try:
        plan = spark._jsparkSession.sessionState().sqlParser().parsePlan(text)
    except (ParseException, PySparkException) as error:
        raise ConfigError(f"{where}: {text!r} does not parse: {reason(error)}") from error
    jvm: Any = spark._jvm
    command = jvm.java.lang.Class.forName("org.apache.spark.sql.catalyst.plans.logical.Command")
    for node in _walk(plan):
        if command.isInstance(node) or _name(node).startswith("Insert"):
            raise ConfigError(f"{where}: {text!r} is no query ({_name(node)}): expected a SELECT, which changes nothing")


def reason(error: Exception) -> str:
    """Spark's sentence, without the page that follows it."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines or [type(error).__name__])[0][:400]


def quoted(name: str) -> str:
    """A column's name in SQL."""
    return "`" + name.replace("`", "``") + "`"


def literal(value: Any) -> str:
    """A value in SQL."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)
    text = value if isinstance(value, str) else value.isoformat()
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def _parse(spark: SparkSession, text: str, shown: str, where: str) -> Any:
    try:
        return spark._jsparkSession.sessionState().sqlParser().parseExpression(text)
    except (ParseException, PySparkException) as error:
        raise ConfigError(f"{where}: {shown!r} does not parse: {reason(error)}") from error


def _walk(node: Any) -> Iterator[Any]:
    yield node
    for side in (node.children(), *([node.innerChildren()] if _name(node) == "UnresolvedWith" else [])):
        for index in range(side.size()):
            yield from _walk(side.apply(index))


def _name(node: Any) -> str:
    return str(node.getClass().getSimpleName())
