"""Conditions such as ``error = 'ValueError' and value.number >= 5``: which letters or records are meant. Pure.

A name is a path into what is asked about; ``=  !=  <  <=  >  >=`` compare it with a number, a 'text', true, false or null.
Conditions are joined by ``and``. What has no such field, or cannot be compared, does not match.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from pipeline.errors import ConfigError

TEXT_MAX = 4_096
_CONDITION = re.compile(
    r"\s*(?P<name>[A-Za-z_][\w.]{0,255})\s*(?P<op>!=|<=|>=|=|<|>)\s*"
    r"(?:'(?P<text>[^']*)'|(?P<number>-?\d+(?:\.\d+)?)|(?P<word>true|false|null)\b)\s*"
)
_AND = re.compile(r"and\b", re.IGNORECASE)
_COMPARE: dict[str, Callable[[Any, Any], bool]] = {
    "=": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_WORDS = {"true": True, "false": False, "null": None}
_ABSENT = object()


@dataclass(frozen=True, slots=True)
class Where:
    """Parsed conditions; none match everything."""

    conditions: tuple[tuple[tuple[str, ...], str, Any], ...] = ()

    def __call__(self, about: Mapping[str, Any]) -> bool:
        return all(_holds(_at(about, path), op, wanted) for path, op, wanted in self.conditions)

    @property
    def asks_for_values(self) -> bool:
        """Whether a record has to be decoded to tell."""
        return any(path[0] == "value" for path, _, _ in self.conditions)


def parse_where(text: str | None) -> Where:
    """Raises ConfigError, naming the place that is not understood."""
    if not text:
        return Where()
    if len(text) > TEXT_MAX:
        raise ConfigError(f"--where is longer than {TEXT_MAX} characters")
    conditions = []
    at = 0
    while True:
        found = _CONDITION.match(text, at)
        if found is None:
            here = f"at character {at + 1}: {text[at : at + 20]!r}"
            raise ConfigError(f"--where: expected a condition like error = 'ValueError' {here}")
        number, word = found["number"], found["word"]
        wanted: Any = found["text"]
        if number is not None:
            wanted = float(number) if "." in number else int(number)
        elif word is not None:
            wanted = _WORDS[word]
        conditions.append((tuple(found["name"].split(".")), found["op"], wanted))
        at = found.end()
        if at == len(text):
            return Where(tuple(conditions))
        joined = _AND.match(text, at)
        if joined is None:
            raise ConfigError(f"--where: expected `and` at character {at + 1}: {text[at : at + 20]!r}")
        at = joined.end()


def _at(about: Any, path: tuple[str, ...]) -> Any:
    for name in path:
        if not isinstance(about, Mapping) or name not in about:
            return _ABSENT
        about = about[name]
    return about


def _holds(found: Any, op: str, wanted: Any) -> bool:
    if found is _ABSENT:
        return False
    try:
        return bool(_COMPARE[op](found, wanted))
    except TypeError:
        return False
