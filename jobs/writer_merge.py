"""Merging the named types of a newer schema into those of the older ones: what a table can follow, and what it cannot.

Types are JSON trees whose named types are full names; their definitions stand beside them. See jobs/reader_schema.py.
"""

from __future__ import annotations

from typing import Any

from pipeline.errors import SchemaError

Tree = Any
_PRIMITIVE = frozenset({"null", "boolean", "int", "long", "float", "double", "bytes", "string"})
_NAMED = ("record", "error", "enum", "fixed")
# Widenings that lose nothing and that Delta tables know; Avro reads both as the wider one.
_WIDER = {
    frozenset({"int", "long"}): "long",
    frozenset({"int", "float"}): "double",
    frozenset({"int", "double"}): "double",
    frozenset({"float", "double"}): "double",
}
# Columns of a type of their own; other logical types are stored as the number or bytes that they are.
_TYPED = frozenset(
    {"decimal", "date", "timestamp-millis", "timestamp-micros", "local-timestamp-millis", "local-timestamp-micros"}
)


class Definitions(dict[str, dict[str, Tree]]):
    """Definitions by full name."""


def normal(tree: Tree) -> tuple[Definitions, str]:
    """A record's schema as definitions by full name, and its own full name."""
    found = Definitions()
    name: str = _normal(tree, "", found)
    return found, name


def merge_definitions(old: Definitions, new: Definitions, old_top: str, new_top: str) -> Definitions:
    """``new`` over ``old``, neither changed. Raises SchemaError naming the place where a table cannot follow."""
    renamed = {old_top: new_top} if old_top != new_top else {}
    for name, definition in new.items():
        for alias in definition.get("aliases", ()):
            if alias in old and alias not in new:
                renamed[alias] = name
    older = _renamed(old, renamed)
    out = Definitions(older)
    for name, definition in new.items():
        out[name] = _merged(older[name], definition, name) if name in older else definition
    return out


# -- one schema's types ------------------------------------------------------------------------------------------------


def _normal(tree: Tree, space: str, found: Definitions) -> Tree:
    """The tree with every named type replaced by its full name; definitions go to ``found``."""
    if isinstance(tree, str):
        return tree if tree in _PRIMITIVE or "." in tree or f"{space}.{tree}" not in found else f"{space}.{tree}"
    if isinstance(tree, list):
        return [_normal(branch, space, found) for branch in tree]
    kind = tree["type"]
    if kind in _NAMED:
        return _defined(tree, space, found)
    if kind == "array":
        return tree | {"items": _normal(tree["items"], space, found)}
    if kind == "map":
        return tree | {"values": _normal(tree["values"], space, found)}
    return tree if isinstance(kind, str) and kind in _PRIMITIVE else _normal(kind, space, found)


def _defined(tree: Tree, space: str, found: Definitions) -> str:
    full_name: str = tree["name"]
    if "." not in full_name and (inside := tree.get("namespace", space)):
        full_name = f"{inside}.{full_name}"
    own = full_name.rpartition(".")[0]
    definition = {key: value for key, value in tree.items() if key not in ("namespace", "doc")} | {"name": full_name}
    if aliases := tree.get("aliases"):
        definition["aliases"] = [alias if "." in alias or not own else f"{own}.{alias}" for alias in aliases]
    found[full_name] = definition
    if "fields" in tree:
        definition["fields"] = [
            {key: value for key, value in one.items() if key in ("name", "aliases")} | {"type": _normal(one["type"], own, found)}
            for one in tree["fields"]
        ]
    return full_name


def _renamed(definitions: Definitions, names: dict[str, str]) -> Definitions:
    """Definitions under their newer names, which keep the older ones as aliases: that is how older bytes are still read."""
    if not names:
        return definitions

    def through(tree: Tree) -> Tree:
        if isinstance(tree, list):
            return [through(branch) for branch in tree]
        if isinstance(tree, dict):
            return tree | {key: through(tree[key]) for key in ("items", "values") if key in tree}
        return names.get(tree, tree)

    out = Definitions()
    for name, definition in definitions.items():
        changed = dict(definition)
        if name in names:
            changed |= {"name": names[name], "aliases": _together([name], definition.get("aliases", []))}
        if "fields" in definition:
            changed["fields"] = [one | {"type": through(one["type"])} for one in definition["fields"]]
        out[names.get(name, name)] = changed
    return out


# -- two definitions of one name ---------------------------------------------------------------------------------------


def _merged(old: dict[str, Tree], new: dict[str, Tree], name: str) -> dict[str, Tree]:
    if old["type"] != new["type"]:
        raise SchemaError(f"{name} was {_a(old['type'])} and is {_a(new['type'])} now: a table's column cannot change so")
    aliases = _together(new.get("aliases", []), old.get("aliases", []))
    out = new | ({"aliases": aliases} if aliases else {})
    if new["type"] == "enum":
        return out | {"symbols": _together(old["symbols"], new["symbols"])}
    if new["type"] == "fixed":
        if old["size"] != new["size"]:
            raise SchemaError(f"the fixed {name} had {old['size']} bytes and has {new['size']} now")
        return out | _as_object(_settled(_base(old, "fixed"), _base(new, "fixed"), name))
    return out | {"fields": _fields(old["fields"], new["fields"], name)}


def _fields(old: list[dict[str, Tree]], new: list[dict[str, Tree]], record: str) -> list[dict[str, Tree]]:
    older, newer = {one["name"]: one for one in old}, {one["name"] for one in new}
    out, renamed = [], set()
    for one in new:
        was = next((name for name in (one["name"], *one.get("aliases", ())) if name in older), None)
        if was is None or (was != one["name"] and was in newer):
            out.append(one)
            continue
        before = older[was]
        renamed.add(was)
        aliases = _together(one.get("aliases", []), before.get("aliases", []))
        out.append(one | {"type": _settled(before["type"], one["type"], f"{record}.{one['name']}"), "aliases": aliases})
    out += [one for one in old if one["name"] not in newer and one["name"] not in renamed]
    # An alias that is a column of its own again would draw that column's values to itself.
    taken = {one["name"] for one in out}
    return [one | {"aliases": [a for a in one.get("aliases", ()) if a not in taken]} for one in out]


def _settled(old: Tree, new: Tree, at: str) -> Tree:
    """The type that reads both, as a column that held the older one can become."""
    if isinstance(old, list) or isinstance(new, list):
        return _unions(_branches(old), _branches(new), at)
    if old == new:
        return old
    if isinstance(old, dict) and isinstance(new, dict) and old["type"] == new["type"] and old["type"] in ("array", "map"):
        inside = "items" if old["type"] == "array" else "values"
        return new | {inside: _settled(old[inside], new[inside], at)}
    before, now = _plain(old), _plain(new)
    if before is not None and now is not None:
        return _primitives(old, new, before, now, at)
    raise SchemaError(f"{at} was {_a(old)} and is {_a(new)} now: a table's column cannot change so")


def _unions(old: list[Tree], new: list[Tree], at: str) -> list[Tree]:
    """Without null: everything in a reader's schema is nullable."""
    old, new = [b for b in old if b != "null"], [b for b in new if b != "null"]
    if len(old) == 1 and len(new) == 1:
        return [_settled(old[0], new[0], at)]
    if not old or not new:
        return [*old, *new]
    if (len(old) == 1) != (len(new) == 1) or _is_number(old) or _is_number(new):
        if old == new:
            return old
        before, now = " or ".join(map(_a, old)), " or ".join(map(_a, new))
        raise SchemaError(f"{at} was {before} and is {now} now: a table's column cannot change so")
    later = {_identity(branch): branch for branch in new}
    kept = [_settled(branch, later.pop(_identity(branch), branch), at) for branch in old]
    return [*kept, *later.values()]


def _primitives(old: Tree, new: Tree, before: str, now: str, at: str) -> Tree:
    was, is_now = _logical(old), _logical(new)
    if before == now and "decimal" in (was[:1] + is_now[:1]) and was[:1] == is_now[:1] and was[2] == is_now[2]:
        return new if is_now[1] >= was[1] else old
    if was != is_now and (_TYPED & {*was[:1], *is_now[:1]} or (was and is_now)):
        raise SchemaError(f"{at} was {_a(old)} and is {_a(new)} now: the same bytes would mean something else")
    if before == now:
        return old
    wider = _WIDER.get(frozenset({before, now}))
    if wider is None or was or is_now:
        raise SchemaError(f"{at} was {_a(old)} and is {_a(new)} now: a table's column cannot change so")
    return wider


# -- small things ------------------------------------------------------------------------------------------------------


def _branches(tree: Tree) -> list[Tree]:
    return tree if isinstance(tree, list) else [tree]


def _plain(tree: Tree) -> str | None:
    """The primitive (or fixed) that a type is written as; None for others."""
    kind = tree["type"] if isinstance(tree, dict) else tree
    return kind if kind in _PRIMITIVE or kind == "fixed" else None


def _logical(tree: Tree) -> tuple[Any, ...]:
    """Name, precision and scale of a logical type; empty without one."""
    if not isinstance(tree, dict) or not isinstance(tree.get("logicalType"), str):
        return ()
    return tree["logicalType"], tree.get("precision", 0), tree.get("scale", 0)


def _identity(tree: Tree) -> str:
    return str(tree["type"] if isinstance(tree, dict) else tree)


def _is_number(branches: list[Tree]) -> bool:
    """Spark takes these unions for one number, others for a struct with a member for each branch."""
    return {_identity(branch) for branch in branches} in ({"int", "long"}, {"float", "double"})


def _base(definition: dict[str, Tree], kind: str) -> Tree:
    return {"type": kind} | {key: definition[key] for key in ("logicalType", "precision", "scale") if key in definition}


def _as_object(tree: Tree) -> dict[str, Tree]:
    return tree if isinstance(tree, dict) else {"type": tree}


def _together(first: list[str], second: list[str]) -> list[str]:
    return list(dict.fromkeys([*first, *second]))


def _a(tree: Tree) -> str:
    """What a person calls a type."""
    if isinstance(tree, list):
        return " or ".join(_a(branch) for branch in tree)
    if not isinstance(tree, dict):
        return str(tree)
    logical = _logical(tree)
    if logical[:1] == ("decimal",):
        return f"decimal({logical[1]}, {logical[2]})"
    return str(logical[0] if logical else tree["type"])
