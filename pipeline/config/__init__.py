"""Configuration: headrace.yml, checked on load (DESIGN.md §7)."""

from pipeline.config.load import load_config
from pipeline.config.merge import Merge
from pipeline.config.model import Aggregation, Claims, Config, Connection, ProducerSettings, StreamConfig, TableConfig

__all__ = [
    "Aggregation",
    "Claims",
    "Config",
    "Connection",
    "Merge",
    "ProducerSettings",
    "StreamConfig",
    "TableConfig",
    "load_config",
]
