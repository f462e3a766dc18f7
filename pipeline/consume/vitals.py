"""Does a reader get on? Samples of its partitions, judged by Burrow's rules, and how long it has been at one thing.

Over a window of samples of a partition: lag 0 at any time is well; a position that stands still while there is lag is a
stall; a position that moves while the lag only grows is falling behind. Pure: times come in, in seconds of one clock.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise

from pipeline.model.shards import Place

SAMPLE_S = 5.0
SAMPLES = 12  # a minute


@dataclass(frozen=True, slots=True)
class Sample:
    """A partition at one time: the next (offset, index) to handle, and the messages behind the end."""

    offset: int
    index: int
    lag: int


@dataclass(slots=True)
class Vitals:
    """``stuck_after_s``: how long a handler, a gate or a caller may take before it is a complaint."""

    stuck_after_s: float
    polled_at: float
    _sampled_at: float = 0.0
    _samples: dict[Place, deque[Sample]] = field(default_factory=dict)

    def due(self, now: float) -> bool:
        """The reader polls; returns whether it is time for a sample."""
        self.polled_at = now
        return now >= self._sampled_at + SAMPLE_S

    def sample(self, now: float, places: Mapping[Place, Sample]) -> None:
        self._sampled_at = now
        for gone in self._samples.keys() - places.keys():
            del self._samples[gone]
        for place, one in places.items():
            self._samples.setdefault(place, deque(maxlen=SAMPLES)).append(one)

    def problems(self, now: float, handler_s: float, gated_s: Mapping[Place, float]) -> list[str]:
        """What is wrong, in sentences. ``handler_s``: how long the slowest handler has been at its record."""
        found: list[str] = []
        if handler_s > self.stuck_after_s:
            found.append(f"a handler has been at one record for {handler_s:.0f} s")
        silent_s = now - self.polled_at
        if silent_s > self.stuck_after_s:
            found.append(f"no poll for {silent_s:.0f} s: the caller is at one record, or gone")
        for (topic, partition), waited_s in gated_s.items():
            if waited_s > self.stuck_after_s:
                found.append(f"{topic}[{partition}] has waited for its parents for {waited_s:.0f} s: is their reader alive?")
        for (topic, partition), samples in list(self._samples.items()):
            verdict = judge(list(samples))
            if verdict is not None:
                found.append(f"{topic}[{partition}] {verdict}")
        return found


def judge(samples: list[Sample]) -> str | None:
    """Burrow's verdict on a full window; None while all is well, or it is too early to say."""
    if len(samples) < SAMPLES or any(one.lag == 0 for one in samples):
        return None
    first, last = samples[0], samples[-1]
    seconds = SAMPLE_S * (SAMPLES - 1)
    if (first.offset, first.index) == (last.offset, last.index):
        return f"stands at {last.offset} for {seconds:.0f} s, {last.lag:,} messages behind"
    if all(later.lag >= before.lag for before, later in pairwise(samples)) and last.lag > first.lag:
        return f"falls behind: from {first.lag:,} to {last.lag:,} messages in {seconds:.0f} s"
    return None
