"""What ``put`` does for most records, once more in C: optional, and only ever faster.

It is built from the C files beside this one where a compiler is there when Headrace is installed; without it everything works
the same, in Python. It takes no decision of its own: whatever is rare (a full buffer, a sealed shard, headers, a value of a type
it does not know) it gives up, and the Python code does all of it. tests/property/test_compiled.py holds it to that code.
``HEADRACE_COMPILED=0`` in the environment turns it off.

    Encoder    schema/encode.py's EntryEncoder    encode.c, after a program that schema/program.py makes
    Entries    produce/entries.py's Parts         entries.c
    Room       produce/room.py's Room             put.c
    Putter     the middle of Producer.put         put.c
"""

from __future__ import annotations

import os

from pipeline.errors import ConfigError

SWITCH = "HEADRACE_COMPILED"


def wanted() -> bool:
    """Whether the environment lets it be used. Raises ConfigError where the switch is neither 0 nor 1."""
    value = os.environ.get(SWITCH, "1")
    if value not in ("0", "1"):
        raise ConfigError(f"{SWITCH} has to be 0 (Python alone) or 1 (compiled where it was built), not {value!r}")
    return value == "1"


try:
    if not wanted():
        raise ImportError(f"{SWITCH}=0")
    from pipeline.compiled import _core as core
except ImportError:
    core = None  # type: ignore[assignment]
