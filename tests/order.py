"""Order per key as the tests compare it: what was handled against what was put."""

from __future__ import annotations

import itertools


def first_difference(handled: dict[str, list[int]], put: dict[str, list[int]]) -> object:
    """The earliest record that is not where it should be: its key and the numbers around it, as handled and as put."""
    found = []
    for key in handled.keys() | put.keys():
        for at, (was, should) in enumerate(itertools.zip_longest(handled.get(key, []), put.get(key, []))):
            if was != should:
                found.append((min(n for n in (was, should) if n is not None), key, at))
                break
    if not found:
        return None
    _, key, at = min(found)
    around = slice(max(0, at - 3), at + 10)
    return f"{len(found)} keys differ", key, at, handled.get(key, [])[around], put.get(key, [])[around]
