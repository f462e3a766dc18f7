"""`headrace exporter`: surveys the cluster every few seconds and tells it to Prometheus, whoever else is alive."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterable

from pipeline import metrics
from pipeline.config import Config
from pipeline.errors import RetryableError
from pipeline.observe.endpoint import serve
from pipeline.watch.survey import StreamView, Survey, Surveyor

log = logging.getLogger("headrace.watch")


class Exporter:
    """Holds the newest survey. While surveys fail its gauges are left out, so that old figures are not taken for new ones."""

    def __init__(self, config: Config) -> None:
        self.url = serve(config, "exporter")
        self._surveyor = Surveyor(config)
        self._newest: Survey | None = None
        self._failing = False
        metrics.SURVEY_FAILURES.inc(0)
        metrics.LIVE.watch(self.read_gauges)

    def read_gauges(self) -> list[metrics.Sample]:
        survey = self._newest
        return [] if survey is None else list(samples(survey))

    def run(self, stop: threading.Event, interval_s: float) -> None:
        """Until ``stop`` is set; outages of the cluster are waited out."""
        try:
            while not stop.is_set():
                self.look()
                stop.wait(interval_s)
        finally:
            self._surveyor.close()

    def look(self) -> Survey | None:
        """One survey. Raises StopError."""
        try:
            self._newest = survey = self._surveyor.look()
        except RetryableError as error:
            self._newest = None
            metrics.SURVEY_FAILURES.inc()
            if not self._failing:  # an outage is one line, not one every few seconds
                log.warning("the cluster is not surveyed for now: %s", error)
            self._failing = True
            return None
        self._failing = False
        metrics.SURVEY_SECONDS.observe(survey.seconds)
        metrics.SURVEYED.set(time.time())
        return survey


def samples(survey: Survey) -> Iterable[metrics.Sample]:
    """A survey as gauges."""
    yield metrics.BROKERS, (), survey.brokers
    yield metrics.UNDER_REPLICATED, (), survey.under_replicated
    for stream in survey.streams:
        if stream.problem is None:
            yield from _stream_samples(stream)


def _stream_samples(stream: StreamView) -> Iterable[metrics.Sample]:
    name = (stream.name,)
    yield metrics.PARTITIONS_USED, name, stream.partitions_used
    yield metrics.PARTITIONS_MAX, name, stream.partitions_max
    yield metrics.PENDING_RESHARDS, name, stream.pending
    yield metrics.PENDING_SECONDS, name, stream.pending_s
    yield metrics.DEAD_LETTERS_KEPT, name, stream.dead_letters
    for state, count in stream.states.items():
        yield metrics.STREAM_SHARDS, (*name, state), count
    for shard in stream.shards:
        yield metrics.SHARD_MESSAGES, (*name, shard.id), shard.messages
        yield metrics.SHARD_SHARE, (*name, shard.id), shard.share
    for group, lags in stream.lags.items():
        for shard_id, lag in lags.items():
            yield metrics.GROUP_LAG, (*name, group, shard_id), lag
