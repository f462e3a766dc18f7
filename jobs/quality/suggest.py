"""headrace quality suggest TABLE: rules that hold for the table today, as YAML for headrace.yml.

Candidates come from the profile; each is then compiled and judged like a rule of headrace.yml, over the whole table, and only
those that hold are given. What they are worth is for a person to say: they describe the rows that are there.
"""

from __future__ import annotations

import argparse
import math
import re
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import yaml
from pydantic import ValidationError
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql import types as T

from jobs import tables
from jobs.expressions import quoted
from jobs.quality import command
from jobs.quality.judge import Judge
from jobs.quality.profile import ColumnProfile, profile
from jobs.references import References
from jobs.tables import REJECTED
from pipeline.config import Config
from pipeline.config.quality import RULES_MAX, Rule
from pipeline.errors import ConfigError

VALUES_MAX = 12
ROWS_PER_VALUE = 10
"""So many rows for each value, on average, before few values are taken for a closed list."""
SHAPES_MAX, SHAPE_LENGTH_MAX = 4, 40
NULLS_MAX_RATIO = 0.5


def suggest(spark: SparkSession, config: Config, table: str) -> list[dict[str, Any]]:
    """Entries of ``expect:``. Raises ConfigError for a gold table, TableError for one that is not there."""
    configured = config.table(table)
    if configured.layer == "gold":
        raise ConfigError(f"{table}: gold tables take no rules: ask for the silver tables it is made from")
    rows = tables.load(spark, config, table)
    if REJECTED in rows.columns:
        rows = rows.where(F.col(f"{REJECTED}.reason").isNull()).drop(REJECTED)
    visible = tables.read(spark, config, table)
    visible = visible.select(*(quoted(name) for name in visible.columns if not name.startswith("_")))
    found = profile(visible)
    candidates = [entry for one in found for entry in _of_column(one)]
    candidates += [entry for one, shapes in _shapes(visible, found) if (entry := _pattern(one, shapes)) is not None]
    rules = [Rule.model_validate(entry) for entry in candidates if _is_valid(entry)][:RULES_MAX]
    judge = Judge(spark, configured.model_copy(update={"expect": rules}), References(spark, config), rows.where("false"))
    outcomes = judge.outcomes(judge.judged(rows, lambda: rows))
    return [_entry(one.rule) for one in outcomes if one.passed and one.rows_checked]


def text(table: str, entries: Sequence[dict[str, Any]]) -> str:
    """The entries as a piece of headrace.yml."""
    listed = "".join(
        f"      - {yaml.safe_dump(entry, default_flow_style=True, width=10_000, sort_keys=False, allow_unicode=True).strip()}\n"
        for entry in entries
    )
    return f"tables:\n  {table}:\n    expect:\n{listed}" if entries else f"# no rule is worth suggesting for {table}\n"


def _of_column(one: ColumnProfile) -> Iterator[dict[str, Any]]:
    there = one.rows - one.nulls
    if not there:
        return
    if not one.nulls:
        yield {"column": one.name, "complete": True}
    elif one.nulls / one.rows <= NULLS_MAX_RATIO:
        yield {"column": one.name, "complete": math.floor(there / one.rows * 100) / 100}
    if one.type == "string":
        if one.has_all_values and len(one.top) <= VALUES_MAX and there >= ROWS_PER_VALUE * len(one.top):
            yield {"column": one.name, "values": sorted(value for value, _ in one.top)}
    elif isinstance(one.minimum, int | float) and not isinstance(one.minimum, bool) and math.isfinite(one.maximum):
        yield {"column": one.name, "between": [one.minimum, one.maximum]}


def _shapes(rows: DataFrame, found: Sequence[ColumnProfile]) -> list[tuple[ColumnProfile, list[str]]]:
    """Columns of texts that are no closed list, with the shapes of their texts (A, a and 9 for letters and digits) if few."""
    texts = [
        one
        for one in found
        if isinstance(rows.schema[one.name].dataType, T.StringType) and one.rows > one.nulls and not one.has_all_values
    ]
    if not texts:
        return []
    wanted = []
    for number, one in enumerate(texts):
        shape = F.col(quoted(one.name))
        for letters, stands in (("[A-Z]", "A"), ("[a-z]", "a"), ("[0-9]", "9")):
            shape = F.regexp_replace(shape, letters, stands)
        wanted.append(F.substring(shape, 1, SHAPE_LENGTH_MAX + 1).alias(f"s{number}"))
    shaped = rows.select(*wanted)
    row = shaped.agg(*(F.expr(f"approx_top_k(s{n}, {SHAPES_MAX + 1})").alias(f"s{n}") for n in range(len(texts)))).collect()[0]
    return [(one, sorted(top["item"] for top in row[f"s{n}"] if top["item"] is not None)) for n, one in enumerate(texts)]


def _pattern(one: ColumnProfile, shapes: Sequence[str]) -> dict[str, Any] | None:
    if not shapes or len(shapes) > SHAPES_MAX or any(not shape or len(shape) > SHAPE_LENGTH_MAX for shape in shapes):
        return None
    return {"column": one.name, "matches": "|".join(_regular(shape) for shape in shapes)}


def _regular(shape: str) -> str:
    """``AA-99`` as ``[A-Z]{2}-[0-9]{2}``."""
    out = []
    for match in re.finditer(r"A+|a+|9+|.", shape, re.DOTALL):
        run = match[0]
        letters = {"A": "[A-Z]", "a": "[a-z]", "9": "[0-9]"}.get(run[0])
        out.append(re.escape(run) if letters is None else letters if len(run) == 1 else f"{letters}{{{len(run)}}}")
    return "".join(out)


def _is_valid(entry: dict[str, Any]) -> bool:
    try:
        Rule.model_validate(entry)
    except ValidationError:  # a column whose name a rule cannot say
        return False
    return True


def _entry(rule: Rule) -> dict[str, Any]:
    value = getattr(rule, rule.check)
    return {"column": rule.column[0], rule.check: list(value) if isinstance(value, tuple) else value, "on_fail": rule.on_fail}


def main(arguments: list[str] | None = None) -> int:
    made = command.parser("suggest", "Rules that hold for a table today, as YAML.")
    made.add_argument("table")

    def work(spark: SparkSession, config: Config, options: argparse.Namespace) -> Any:
        return {"table": options.table, "expect": suggest(spark, config, options.table)}

    return command.run(made, arguments, work, lambda found: _print(text(found["table"], found["expect"])))


def _print(yaml_text: str) -> None:
    sys.stdout.write(yaml_text)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
