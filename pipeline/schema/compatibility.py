"""Whether one schema can read what another wrote, and if not, where and by which rule.

The rules are those of PyPI's ``avro`` (which are Java's; a property test compares the verdicts), walked here so that every
finding keeps its own path and its own names, plus three that they miss because a reader does not fail but reads wrongly:

- ``DECIMAL_MISMATCH``: the same digits with another precision or scale are another number;
- ``TIME_UNIT_MISMATCH``: the same number read as milliseconds instead of microseconds is another instant;
- ``INVALID_DEFAULT``: a default that does not fit its type fails only on the first record that needs it.

Pure; safe to call from any thread. The work is bounded: ``PAIRS_MAX`` pairs of types.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from pipeline.errors import SchemaError
from pipeline.schema.avro_tree import FieldNode, Node
from pipeline.schema.default_values import fits

PAIRS_MAX: Final = 500_000
REASONS_MAX: Final = 50  # a reader of an answer stops long before; without a bound a hostile schema has millions
_PROMOTIONS: Final = {
    "long": frozenset({"int"}),
    "float": frozenset({"int", "long"}),
    "double": frozenset({"int", "long", "float"}),
    "bytes": frozenset({"string"}),
    "string": frozenset({"bytes"}),
}


class Level(StrEnum):
    """Which readers must be able to read which writers. The plain kinds look at the latest version only."""

    NONE = "NONE"
    BACKWARD = "BACKWARD"
    BACKWARD_TRANSITIVE = "BACKWARD_TRANSITIVE"
    FORWARD = "FORWARD"
    FORWARD_TRANSITIVE = "FORWARD_TRANSITIVE"
    FULL = "FULL"
    FULL_TRANSITIVE = "FULL_TRANSITIVE"

    @property
    def transitive(self) -> bool:
        return self.name.endswith("_TRANSITIVE")

    @property
    def new_reads_old(self) -> bool:
        return self.name.startswith(("BACKWARD", "FULL"))

    @property
    def old_reads_new(self) -> bool:
        return self.name.startswith(("FORWARD", "FULL"))


@dataclass(frozen=True, slots=True)
class Incompatibility:
    """One reason. ``path`` leads to the place in the reader's schema (``/fields/2/type``), ``rule`` is what was broken."""

    rule: str
    path: str
    detail: str
    sentence: str

    def message(self, reader: str = "new", writer: str = "old") -> str:
        """The reason in the form in which Confluent's registry words it; ``reader`` and ``writer`` say which is which."""
        text = self.sentence.format(reader=reader, writer=writer, path=self.path, detail=self.detail)
        return f"{{errorType:'{self.rule}', description:'{text}', additionalInfo:'{self.detail}'}}"


_SENTENCES: Final = {
    "NAME_MISMATCH": "The name of the schema has changed (path '{path}')",
    "FIXED_SIZE_MISMATCH": "The size of FIXED type field at path '{path}' in the {reader} schema does not match with the "
    "{writer} schema",
    "MISSING_ENUM_SYMBOLS": "The {reader} schema is missing enum symbols '{detail}' at path '{path}' in the {writer} schema",
    "READER_FIELD_MISSING_DEFAULT_VALUE": "The field '{detail}' at path '{path}' in the {reader} schema has no default value "
    "and is missing in the {writer} schema",
    "TYPE_MISMATCH": "The type (path '{path}') of a field in the {reader} schema does not match with the {writer} schema",
    "MISSING_UNION_BRANCH": "The {reader} schema is missing a type inside a union field at path '{path}' in the {writer} schema",
    "DECIMAL_MISMATCH": "The precision or scale of the decimal at path '{path}' differs between the {reader} schema and the "
    "{writer} schema: its digits would be read as another number",
    "TIME_UNIT_MISMATCH": "The unit of time at path '{path}' differs between the {reader} schema and the {writer} schema: its "
    "number would be read as another time",
    "INVALID_DEFAULT": "The default of the field '{detail}' at path '{path}' in the {reader} schema does not fit its type and is "
    "needed to read the {writer} schema",
}


def can_read(reader: Node, writer: Node) -> list[Incompatibility]:
    """Why ``reader`` cannot read everything that ``writer`` may have written; empty if it can.

    Raises ``SchemaError`` if the two are too large to be compared.
    """
    try:
        return _Checker().pair(reader, writer, "")
    except RecursionError as error:
        raise SchemaError("the schema's types refer to each other too deeply to be compared: split the schema") from error


def check(new: Node, previous: Sequence[Node], level: Level) -> list[str]:
    """Messages why ``new`` may not follow ``previous`` (oldest first); empty if it may.

    The newest version that is broken is reported, with all its reasons.
    """
    for old in reversed(previous if level.transitive else previous[-1:]):
        messages = []
        if level.new_reads_old:
            messages += [found.message("new", "old") for found in can_read(new, old)]
        if level.old_reads_new:
            messages += [found.message("old", "new") for found in can_read(old, new)]
        if messages:
            return messages
    return []


def _found(rule: str, path: str, detail: str) -> list[Incompatibility]:
    return [Incompatibility(rule, path or "/", detail, _SENTENCES[rule])]


class _Checker:
    def __init__(self) -> None:
        # A pair that is being looked at counts as readable meanwhile: that is what ends recursive schemas.
        self.known: dict[tuple[int, int], list[Incompatibility]] = {}

    def pair(self, reader: Node, writer: Node, path: str) -> list[Incompatibility]:
        key = (id(reader), id(writer))
        if key in self.known:
            return self.known[key]
        if len(self.known) >= PAIRS_MAX:
            raise SchemaError(f"the schemas have more than {PAIRS_MAX:,} pairs of types to compare: split the schema")
        self.known[key] = []
        result = self.compare(reader, writer, path)[:REASONS_MAX]
        self.known[key] = result
        return result

    def compare(self, reader: Node, writer: Node, path: str) -> list[Incompatibility]:
        if reader.kind == writer.kind:
            return self.same_kind(reader, writer, path)
        if writer.kind == "union":
            return [found for branch in writer.branches for found in self.pair(reader, branch, path)]
        if reader.kind == "union":
            if any(not self.pair(branch, writer, path) for branch in reader.branches):
                return []
            return self.closest_branch(reader, writer, path)
        if writer.kind in _PROMOTIONS.get(reader.kind, ()):
            return self.meaning(reader, writer, path)
        kinds = f"reader type: {reader.kind.upper()} not compatible with writer type: {writer.kind.upper()}"
        return _found("TYPE_MISMATCH", path, kinds)

    def same_kind(self, reader: Node, writer: Node, path: str) -> list[Incompatibility]:
        kind = reader.kind
        if kind == "union":
            return self.unions(reader, writer, path)
        if reader.inner is not None and writer.inner is not None:
            return self.pair(reader.inner, writer.inner, f"{path}/{'items' if kind == 'array' else 'values'}")
        if not reader.name:
            return self.meaning(reader, writer, path)
        found: list[Incompatibility] = []
        if reader.short_name != writer.short_name and writer.name not in reader.aliases:
            found += _found("NAME_MISMATCH", f"{path}/name", f"expected: {writer.name}")
        if kind == "fixed":
            if reader.size != writer.size:
                found += _found("FIXED_SIZE_MISMATCH", f"{path}/size", f"expected: {writer.size}, found: {reader.size}")
            return found + self.meaning(reader, writer, path)
        if kind == "enum":
            missing = [symbol for symbol in writer.symbols if symbol not in reader.symbols]
            if missing and reader.enum_default not in reader.symbols:
                found += _found("MISSING_ENUM_SYMBOLS", f"{path}/symbols", f"[{', '.join(missing)}]")
            return found
        return found + self.records(reader, writer, path)

    def unions(self, reader: Node, writer: Node, path: str) -> list[Incompatibility]:
        found: list[Incompatibility] = []
        for i, branch in enumerate(writer.branches):
            if all(self.pair(candidate, branch, f"{path}/{i}") for candidate in reader.branches):
                found += self.closest_branch(reader, branch, f"{path}/{i}")
        return found

    def closest_branch(self, reader: Node, writer: Node, path: str) -> list[Incompatibility]:
        """No branch can read ``writer``. Where one is of its type, that one's reasons say more than that none fits."""
        for branch in reader.branches:
            if branch.kind == writer.kind and branch.short_name == writer.short_name:
                reasons = self.pair(branch, writer, path)
                if reasons:
                    return reasons
        return _found("MISSING_UNION_BRANCH", path, f"reader union lacking writer type: {writer.kind.upper()}")

    def records(self, reader: Node, writer: Node, path: str) -> list[Incompatibility]:
        found: list[Incompatibility] = []
        written = {field.name: field for field in writer.fields}
        for i, field in enumerate(reader.fields):
            place = f"{path}/fields/{i}"
            source = _source_of(field, written)
            if source is not None:
                found += self.pair(field.type, source.type, f"{place}/type")
            elif not field.has_default:
                found += _found("READER_FIELD_MISSING_DEFAULT_VALUE", place, field.name)
            elif not fits(field.type, field.default):
                found += _found("INVALID_DEFAULT", f"{place}/default", field.name)
        return found

    def meaning(self, reader: Node, writer: Node, path: str) -> list[Incompatibility]:
        """What both sides say the bytes mean. Where one side says nothing, it is the schema's author who decides."""
        mine, theirs = reader.decimal(), writer.decimal()
        if mine is not None and theirs is not None and mine != theirs:
            return _found("DECIMAL_MISMATCH", path, f"expected: decimal{theirs}, found: decimal{mine}")
        unit, was = reader.time_kind(), writer.time_kind()
        if unit is not None and was is not None and unit != was:
            return _found("TIME_UNIT_MISMATCH", path, f"expected: {was}, found: {unit}")
        return []


def _source_of(field: FieldNode, written: dict[str, FieldNode]) -> FieldNode | None:
    for name in (field.name, *field.aliases):
        if name in written:
            return written[name]
    return None
