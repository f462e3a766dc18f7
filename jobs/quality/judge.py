"""What the rules of a table say about a micro-batch: which rows fail what, and one outcome for each rule.

Row rules become boolean columns beside the row, computed in the JVM where the row is read; all outcomes come out of one
aggregation. A row rule that raises for a row is failed by it; one that gives null is not, as with CHECK in SQL. Deletes have no
values and are not judged.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F

from jobs.expressions import VALUE, attempt
from jobs.quality.compile import RowRule, WholeRule, compile_row_rule, compile_whole_rule, holds_of_columns, query_answer
from jobs.quality.lookup import Before, add_reference, add_unique
from jobs.references import References
from jobs.tables import DELETED, META
from pipeline.config import TableConfig
from pipeline.config.quality import OnFail, Rule
from pipeline.errors import RuleError

log = logging.getLogger("headrace.jobs")


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a rule says about a micro-batch. ``rows_failed`` is None of a rule that does not tell rows apart; ``observed`` is the
    part of rows that pass, or the value that was compared."""

    rule: Rule
    rows_checked: int
    rows_failed: int | None
    observed: str | None
    passed: bool

    @property
    def sentence(self) -> str:
        if self.rows_failed is not None:
            every = "every one" if self.rows_failed == self.rows_checked else f"{self.rows_failed:,}"
            return f"{every} of {self.rows_checked:,} rows fails {self.rule.title!r}"
        return f"{self.rule.title!r} does not hold: observed {self.observed}"


class Judge:
    """Compiled rules of one table. One thread at a time."""

    def __init__(self, spark: SparkSession, table: TableConfig, references: References, rows: DataFrame) -> None:
        """``rows`` are empty, with the columns that the rules will see. Raises ConfigError naming table, rule and reason."""
        self._spark, self._table, self._references = spark, table, references
        self.row_rules: list[RowRule] = []
        self.whole_rules: list[WholeRule] = []
        for number, rule in enumerate(table.expect):
            if rule.is_row_rule:
                self.row_rules.append(compile_row_rule(rule, number, rows, self._where(rule)))
            else:
                self.whole_rules.append(compile_whole_rule(rule, number, rows, self._where(rule)))
        for one in self.row_rules:
            if one.rule.check == "references":
                add_reference(rows, one, references, self._where(one.rule))

    @property
    def is_dear(self) -> bool:
        """Whether a micro-batch should be judged once and kept, not anew for each look at it."""
        return any(one.helper for one in self.row_rules) or any(one.rule.sql for one in self.whole_rules)

    def judged(self, rows: DataFrame, before: Before) -> DataFrame:
        """The rows with a column for each row rule that says whether they fail it. Nothing is computed yet, except for
        ``unique``."""
        columns = rows.columns
        for one in self.row_rules:
            if one.rule.check == "unique":
                rows = add_unique(rows, one, before)
            elif one.rule.check == "references":
                rows = add_reference(rows, one, self._references, self._where(one.rule))
        is_judged = F.col(META).isNotNull() & ~F.col(DELETED)
        fails = {one.fails: self._fails(one, is_judged) for one in self.row_rules}
        return rows.select(*columns, *(column.alias(name) for name, column in fails.items()))

    def outcomes(self, judged: DataFrame) -> list[Outcome]:
        """One aggregation over the micro-batch (and a query for each rule with ``sql``), in the order of ``expect:``."""
        observed = [one.aggregate.alias(one.observes) for one in self.whole_rules if one.aggregate is not None]
        failed = [F.count_if(one.fails).alias(one.fails) for one in self.row_rules]
        found = judged.agg(F.count_if(~F.col(DELETED)).alias("checked"), *failed, *observed).collect()[0].asDict()
        checked = int(found["checked"])
        by_number: dict[int, Outcome] = {}
        for row_rule in self.row_rules:
            count = int(found[row_rule.fails])
            share = f"{1 - count / checked:.6g}" if checked else None
            by_number[row_rule.number] = Outcome(row_rule.rule, checked, count, share, count == 0)
        for whole in self.whole_rules:
            by_number[whole.number] = self._whole(whole, judged, checked, found.get(whole.observes))
        return [by_number[number] for number in sorted(by_number)]

    def fails_any(self, on_fail: OnFail) -> Column:
        """Whether a judged row fails a rule with this reaction."""
        out = F.lit(False)
        for one in self.row_rules:
            if one.rule.on_fail == on_fail:
                out = out | F.col(one.fails)
        return out

    def reasons(self) -> Column:
        """The names of the rules that a judged row fails."""
        named = [F.when(F.col(one.fails), F.lit(one.rule.title)) for one in self.row_rules]
        return F.array_compact(F.array(*named))

    def tell(self, outcomes: Sequence[Outcome]) -> None:
        """Log what failed; a rule that every row fails is probably wrong itself, and said to be."""
        for one in outcomes:
            if one.passed:
                continue
            hint = ": is the rule right?" if one.rows_failed == one.rows_checked else ""
            log.warning("%s: %s (on_fail: %s)%s", self._table.name, one.sentence, one.rule.on_fail, hint)

    def stop_if_told(self, outcomes: Sequence[Outcome]) -> None:
        """Raises RuleError where a rule with ``on_fail: stop`` does not hold."""
        if failed := [one.sentence for one in outcomes if not one.passed and one.rule.on_fail == "stop"]:
            raise RuleError(
                f"{self._table.name}: {'; '.join(failed)}. Nothing of this micro-batch was written: correct the source (or the "
                "rule), then start again"
            )

    def _fails(self, one: RowRule, is_judged: Column) -> Column:
        tried = attempt(self._spark, f"coalesce(({one.condition}\n), true)", self._where(one.rule), is_judged)
        return F.when(is_judged, ~F.coalesce(tried[VALUE], F.lit(False))).otherwise(F.lit(False))

    def _whole(self, whole: WholeRule, judged: DataFrame, checked: int, observed: Any) -> Outcome:
        rule = whole.rule
        if rule.check in ("exists", "type"):
            holds, kind = holds_of_columns(rule, judged)
            return Outcome(rule, checked, None, kind, holds)
        if rule.sql is not None:
            rows = judged.where(~F.col(DELETED)).drop(*(one.fails for one in self.row_rules))
            observed = query_answer(rule, rows) if checked else True
            return Outcome(rule, checked, None, str(observed).lower(), observed is True)
        if not checked and rule.rows is None:
            return Outcome(rule, checked, None, None, True)
        shown = None if observed is None else f"{observed:.6g}" if isinstance(observed, float) else str(observed)
        return Outcome(rule, checked, None, shown, _is_within(rule, observed))

    def _where(self, rule: Rule) -> str:
        return f"tables.{self._table.name}.expect ({rule.title})"


def _is_within(rule: Rule, observed: Any) -> bool:
    if observed is None:
        return rule.stddev is not None  # of a single row there is none
    if rule.complete is not None:
        return bool(observed >= rule.complete)
    if rule.fresh_within is not None:
        return bool(observed <= rule.seconds)
    low, high = rule.rows or rule.mean or rule.stddev or (None, None)
    return (low is None or observed >= low) and (high is None or observed <= high)
