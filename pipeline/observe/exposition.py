"""What our endpoint shows of prometheus_client's default registry."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from prometheus_client import REGISTRY
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

_WITH_CREATED = ("counter", "histogram", "summary")


class Exposed(Collector):
    """Everything but the time of creation of every counter: a quarter of the lines, of use to nobody here. prometheus_client
    can only switch them off for the whole process, whose other metrics are not ours."""

    def collect(self) -> Iterator[Metric]:
        for family in REGISTRY.collect():
            if family.type in _WITH_CREATED:
                family.samples = [sample for sample in family.samples if not sample.name.endswith("_created")]
            yield family

    def restricted_registry(self, names: Iterable[str]) -> Any:
        """For ``?name[]=…``."""
        return REGISTRY.restricted_registry(names)
