"""A producer's options: those of its stream, with what its caller gives as keyword arguments in their place."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipeline.config import StreamConfig
from pipeline.errors import ConfigError


def overridden(stream: StreamConfig, overrides: Mapping[str, Any]) -> StreamConfig:
    """The stream with options of its ``aggregation`` and ``producer`` sections replaced. Raises ConfigError."""
    aggregation = stream.aggregation.model_dump() if stream.aggregation else None
    producer = stream.producer.model_dump()
    for option, value in overrides.items():
        option = option.removeprefix("aggregate_")
        if option in producer:
            producer[option] = value
        elif aggregation is not None and option in aggregation:
            aggregation[option] = value
        else:
            known = ", ".join(sorted({*producer, *(aggregation or {})}))
            raise ConfigError(f"Producer has no option {option!r}; there are: {known}")
    data = stream.model_dump(by_alias=True) | {"aggregation": aggregation, "producer": producer}
    try:
        return StreamConfig.model_validate(data)
    except ValueError as error:
        raise ConfigError(f"Producer({stream.name!r}): {error}") from None
