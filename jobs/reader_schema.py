"""One reader's schema over all writers' schemas of a stream: the union of their fields by name, nullable at the top.

Avro resolves each writer's bytes into it, so every schema id of a micro-batch decodes to the same columns in one expression.
Pure: JSON trees in, JSON tree out. Types are merged by name, as Avro names them; the newest definition comes first, fields
that only older ones have are appended, numbers take the wider type.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pipeline.errors import SchemaError

Tree = Any
_PRIMITIVE = frozenset({"null", "boolean", "int", "long", "float", "double", "bytes", "string"})
_WIDTH = {"int": 0, "long": 1, "float": 2, "double": 3}
_NAMED = ("record", "error", "enum", "fixed")


def reader_schema(writers: Sequence[Tree]) -> dict[str, Tree]:
    """The reader's schema over record schemas, newest first. Raises SchemaError where none can be made: a type that contains
    itself, or columns that differ in upper and lower case only (Spark takes them for one)."""
    merged: dict[str, dict[str, Tree]] = {}
    top = ""
    for tree in writers:
        found: dict[str, dict[str, Tree]] = {}
        name = _normal(tree, "", found)
        top = top or name
        if name != top:  # the value record was renamed: its columns still belong to one table
            found[top] = found.pop(name) | {"name": found.get(top, {}).get("name", top)}
        for full_name, definition in found.items():
            merged[full_name] = _merge(merged[full_name], definition) if full_name in merged else definition
    columns = merged[top]["fields"]
    merged[top] = merged[top] | {"fields": [_optional(one) for one in columns]}
    lower = [one["name"].lower() for one in columns]
    if twice := {name for name in lower if lower.count(name) > 1}:
        raise SchemaError(f"the fields {', '.join(sorted(twice))} differ in upper and lower case only: a table cannot hold both")
    emitted: dict[str, Tree] = _emit(top, merged, set(), ())
    return emitted


def fields(tree: Tree) -> list[str]:
    """The names of a record's fields, in order."""
    return [str(one["name"]) for one in tree["fields"]]


def _normal(tree: Tree, space: str, found: dict[str, dict[str, Tree]]) -> Tree:
    """The tree with every named type replaced by its full name; definitions go to ``found``."""
    if isinstance(tree, str):
        return tree if tree in _PRIMITIVE or "." in tree or f"{space}.{tree}" not in found else f"{space}.{tree}"
    if isinstance(tree, list):
        return [_normal(branch, space, found) for branch in tree]
    kind = tree["type"]
    if kind in _NAMED:
        full_name = tree["name"]
        if "." not in full_name and (inside := tree.get("namespace", space)):
            full_name = f"{inside}.{full_name}"
        own = full_name.rpartition(".")[0]
        definition = {key: value for key, value in tree.items() if key not in ("namespace", "doc")} | {"name": full_name}
        found[full_name] = definition
        if kind in ("record", "error"):
            definition["fields"] = [
                {key: value for key, value in one.items() if key != "doc"} | {"type": _normal(one["type"], own, found)}
                for one in tree["fields"]
            ]
        return full_name
    if kind == "array":
        return tree | {"items": _normal(tree["items"], space, found)}
    if kind == "map":
        return tree | {"values": _normal(tree["values"], space, found)}
    return tree if isinstance(kind, str) and kind in _PRIMITIVE else _normal(kind, space, found)


def _merge(new: dict[str, Tree], old: dict[str, Tree]) -> dict[str, Tree]:
    if new["type"] != old["type"]:
        return new
    if new["type"] == "enum":
        return new | {"symbols": [*new["symbols"], *(one for one in old["symbols"] if one not in new["symbols"])]}
    if new["type"] == "fixed":
        return new
    older = {one["name"]: one for one in old["fields"]}
    out = []
    for one in new["fields"]:
        before = older.get(one["name"])
        if before is not None:
            out.append(one | {"type": _wider(one["type"], before["type"])})
        else:
            out.append(one if "default" in one else _optional(one))
    known = {one["name"] for one in new["fields"]} | {alias for one in new["fields"] for alias in one.get("aliases", ())}
    out += [_optional(one) for one in old["fields"] if one["name"] not in known]
    return new | {"fields": out}


def _wider(new: Tree, old: Tree) -> Tree:
    if isinstance(new, list) or isinstance(old, list):
        branches = [b for b in (new if isinstance(new, list) else [new]) if b != "null"]
        others = [b for b in (old if isinstance(old, list) else [old]) if b != "null"]
        if len(branches) != 1 or len(others) != 1:
            return new
        inner = _wider(branches[0], others[0])
        return [b if b == "null" else inner for b in new] if isinstance(new, list) else inner
    if isinstance(new, dict) and isinstance(old, dict) and new["type"] == old["type"]:
        inside = {"array": "items", "map": "values"}.get(new["type"])
        return new | {inside: _wider(new[inside], old[inside])} if inside else new
    if isinstance(new, str) and isinstance(old, str) and _WIDTH.get(old, -1) > _WIDTH.get(new, 9):
        return old
    return new


def _optional(field: dict[str, Tree]) -> dict[str, Tree]:
    kind = field["type"]
    branches = kind if isinstance(kind, list) else [kind]
    return field | {"type": ["null", *(b for b in branches if b != "null")], "default": None}


def _emit(tree: Tree, merged: dict[str, dict[str, Tree]], done: set[str], inside: tuple[str, ...]) -> Tree:
    """The tree with every definition at its first place and its full name at the others."""
    if isinstance(tree, list):
        return [_emit(branch, merged, done, inside) for branch in tree]
    if isinstance(tree, dict):
        return tree | {key: _emit(tree[key], merged, done, inside) for key in ("items", "values") if key in tree}
    if tree not in merged:
        return tree
    if tree in inside:
        raise SchemaError(f"the type {tree} contains itself: a table's columns cannot. Write the nested value as bytes or a list")
    if tree in done:
        return tree
    done.add(tree)
    definition = merged[tree]
    if "." not in tree:
        definition = definition | {"namespace": ""}
    if "fields" not in definition:
        return definition
    deeper = (*inside, tree)
    return definition | {"fields": [one | {"type": _emit(one["type"], merged, done, deeper)} for one in definition["fields"]]}
