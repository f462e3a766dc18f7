"""Reading endpoints: what running processes tell, as one set of figures. For `headrace top`, which needs no Prometheus."""

from __future__ import annotations

import urllib.request
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from prometheus_client.parser import text_string_to_metric_families

from pipeline.metrics import DEFINITIONS
from pipeline.observe.targets import Target

TIMEOUT_S = 3.0
BYTES_MAX = 32 << 20
AT_ONCE = 8
Labels = frozenset[tuple[str, str]]


@dataclass(slots=True)
class Figures:
    """``values`` by name and labels, put together over processes as their definitions say. ``silent`` are the
    endpoints that did not answer."""

    values: dict[str, dict[Labels, float]] = field(default_factory=dict)
    silent: list[str] = field(default_factory=list)

    def add(self, name: str, labels: Iterable[tuple[str, str]], value: float) -> None:
        of_name = self.values.setdefault(name, {})
        key = frozenset(labels)
        held = of_name.get(key)
        definition = DEFINITIONS.get(name)
        larger = definition is not None and not definition.adds_up
        of_name[key] = value if held is None else max(held, value) if larger else held + value

    def add_text(self, text: str) -> None:
        """An exposition. Raises ValueError for one that is not."""
        for family in text_string_to_metric_families(text):
            if family.name.startswith("headrace_"):
                for sample in family.samples:
                    self.add(sample.name, sample.labels.items(), sample.value)

    def by(
        self, name: str, *labels: str, combine: Callable[[float, float], float] = lambda a, b: a + b
    ) -> dict[tuple[str, ...], float]:
        """A metric's values by some of its labels; those that fall together are added up, or combined by ``combine``."""
        found: dict[tuple[str, ...], float] = {}
        for known, value in self.values.get(name, {}).items():
            told = dict(known)
            key = tuple(told.get(label, "") for label in labels)
            found[key] = combine(found[key], value) if key in found else value
        return found


def scrape(targets: Iterable[Target]) -> Figures:
    """Ask every endpoint, several at once, each within TIMEOUT_S."""
    asked = list(targets)
    figures = Figures()
    with ThreadPoolExecutor(AT_ONCE) as pool:
        for target, text in zip(asked, pool.map(_get, asked), strict=True):
            try:
                if text is None:
                    raise ValueError("no answer")
                figures.add_text(text)
            except ValueError:
                figures.silent.append(target.name)
    return figures


def _get(target: Target) -> str | None:
    try:
        with urllib.request.urlopen(target.url, timeout=TIMEOUT_S) as answer:
            return str(answer.read(BYTES_MAX).decode("utf-8", "replace"))
    except OSError:
        return None
