"""Taking the figures for `headrace top`: every endpoint's, and a survey of our own where no exporter runs."""

from __future__ import annotations

import time

from pipeline.config import Config
from pipeline.config.load import home
from pipeline.observe import targets
from pipeline.observe.scrape import scrape
from pipeline.watch.exporter import samples
from pipeline.watch.survey import Surveyor
from pipeline.watch.view import Moment


class Looker:
    """Not thread-safe."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._surveyor: Surveyor | None = None

    def look(self) -> Moment:
        """Raises BrokerUnavailableError where there is no exporter and no broker."""
        found = targets.running(home())
        figures = scrape(found)
        if not any(one.role == "exporter" for one in found):
            self._surveyor = self._surveyor or Surveyor(self._config)
            for definition, labels, value in samples(self._surveyor.look()):
                figures.add(definition.name, zip(definition.labels, labels, strict=True), value)
        return Moment(figures, time.monotonic(), time.time())

    def close(self) -> None:
        if self._surveyor is not None:
            self._surveyor.close()
