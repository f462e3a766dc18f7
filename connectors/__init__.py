"""Sources and sinks, one file each, behind the two protocols of :mod:`connectors.protocols`."""
