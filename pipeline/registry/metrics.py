"""What can be seen of a registry: /metrics in Prometheus' format."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import generate_latest
from prometheus_client.registry import Collector

from pipeline import metrics
from pipeline.registry.store import SchemaStore

_ROUTES = frozenset({"", "schemas", "subjects", "config", "mode", "compatibility", "contexts", "metrics", "v1"})


def route_name(path: str) -> str:
    """The first part of a path: a label must not grow with the names of subjects."""
    first = path.split("/", 2)[1] if path.startswith("/") else path
    return first if first in _ROUTES else "other"


class RegistryMetrics(Collector):
    """Counters of one registry in a collector of their own. Safe from any thread."""

    def __init__(self, store: SchemaStore) -> None:
        self.store = store
        self.collector = CollectorRegistry()
        requests, seconds = metrics.REGISTRY_REQUESTS, metrics.REGISTRY_SECONDS
        self._requests = Counter(requests.name, requests.meaning, requests.labels, registry=self.collector)
        self._seconds = Histogram(
            seconds.name, seconds.meaning, seconds.labels, registry=self.collector, buckets=metrics.SECONDS
        )
        self.collector.register(self)

    def collect(self) -> Iterator[Metric]:
        """What the store counts itself, read at the scrape."""
        store = self.store
        counts = store.state.counts()
        for definition, value in (
            (metrics.REGISTRY_READY, store.ready),
            (metrics.REGISTRY_SUBJECTS, counts["subjects"]),
            (metrics.REGISTRY_VERSIONS, counts["versions"]),
            (metrics.REGISTRY_IDS, counts["ids"]),
            (metrics.REGISTRY_APPLIED, store.records_applied),
            (metrics.REGISTRY_UNREADABLE, store.unreadable_records),
            (metrics.REGISTRY_CONFLICTS, store.state.conflicts),
            (metrics.REGISTRY_TURNS_TAKEN, store.topic.turns_taken),
            (metrics.REGISTRY_TURNS_LOST, store.topic.turns_lost),
        ):
            kind = CounterMetricFamily if definition.kind == "counter" else GaugeMetricFamily
            yield kind(definition.name, definition.meaning, value=float(value))

    def observe(self, route: str, method: str, status: int, seconds: float) -> None:
        self._requests.labels(route, method, str(status)).inc()
        self._seconds.labels(route, method).observe(seconds)

    def text(self) -> bytes:
        return generate_latest(self.collector)
