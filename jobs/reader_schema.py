"""One reader's schema over all writers' schemas of a stream: what a table's columns are made of.

Avro resolves each writer's bytes into it, so every schema id of a micro-batch decodes to the same columns in one expression.
Pure: JSON trees in, JSON tree out.

The versions are taken oldest first, and what an older one established stands: a later one may add fields, at any depth,
widen numbers that a table can widen (int → long, int → double, float → double, more digits before a decimal's point), add
symbols, rename by alias, reorder, and leave fields out. One that asks for more is *refused*, with the reason: its records
are for the dead letters, and everything else goes on. One that came before (a stream's aggregates and its plain messages have
the same record under two ids) counts where it came first: taken for a newer one, it would undo what came between.

Everything is nullable, at any depth: a field that a writer did not have is null, whatever its default.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from jobs.writer_merge import Definitions, merge_definitions, normal
from pipeline.errors import SchemaError

Tree = Any
Fits = Callable[[Tree], str | None]


@dataclass(frozen=True, slots=True)
class Reader:
    """``tree`` is the reader's schema, a record; ``refused`` says by position in the versions why one is not read."""

    tree: dict[str, Tree]
    refused: Mapping[int, str]

    @property
    def fields(self) -> list[str]:
        """The columns' names, in order."""
        return fields(self.tree)


def reader_schema(versions: Sequence[Tree], fits: Fits = lambda _: None) -> Reader:
    """The reader's schema over record schemas, oldest first. ``fits`` may say why a table cannot take a reader's schema.

    Raises SchemaError where not even the first one that counts can be columns: a type that contains itself, or names that
    differ in upper and lower case only (Spark takes them for one).
    """
    merged, top = Definitions(), ""
    refused: dict[int, str] = {}
    tree: dict[str, Tree] | None = None
    failure: SchemaError | None = None
    normals = [normal(version) for version in versions]
    for number, (found, name) in enumerate(normals):
        if (first := normals.index((found, name))) < number:
            if first in refused:
                refused[number] = refused[first]
            continue
        try:
            candidate = merge_definitions(merged, found, top, name) if top else found
            made = _emit(candidate, name)
            if (why := fits(made)) is not None:
                raise SchemaError(why)
        except SchemaError as error:
            refused[number] = str(error)
            failure = failure or error
            continue
        merged, top, tree = candidate, name, made
    if tree is None:
        if failure is not None and len(versions) == 1:
            raise failure
        tree = {"type": "record", "name": "HeadraceNothing", "fields": []}
    return Reader(tree, refused)


def fields(tree: Tree) -> list[str]:
    """The names of a record's fields, in order."""
    return [str(one["name"]) for one in tree["fields"]]


def _emit(definitions: Definitions, top: str) -> dict[str, Tree]:
    made: dict[str, Tree] = _Emitter(definitions).type(top, ())
    lower = [name.lower() for name in fields(made)]
    if twice := {name for name in lower if lower.count(name) > 1}:
        raise SchemaError(f"the fields {', '.join(sorted(twice))} differ in upper and lower case only: a table cannot hold both")
    return made


@dataclass
class _Emitter:
    """Writes the tree with every definition at its first place and its full name at the others, everything nullable."""

    definitions: Definitions
    done: frozenset[str] = frozenset()

    def type(self, tree: Tree, inside: tuple[str, ...]) -> Tree:
        if isinstance(tree, list):
            return [self.type(branch, inside) for branch in tree]
        if isinstance(tree, dict):
            return tree | {key: self.nullable(tree[key], inside) for key in ("items", "values") if key in tree}
        if tree not in self.definitions:
            return tree
        if tree in inside:
            raise SchemaError(f"the type {tree} contains itself: a table's columns cannot. Write the nested value as bytes")
        if tree in self.done:
            return tree
        self.done = self.done | {tree}
        definition = self.definitions[tree]
        if "." not in tree:
            definition = definition | {"namespace": ""}
        if "fields" not in definition:
            return definition
        deeper = (*inside, tree)
        columns = [one | {"type": self.nullable(one["type"], deeper), "default": None} for one in definition["fields"]]
        return definition | {"fields": columns}

    def nullable(self, tree: Tree, inside: tuple[str, ...]) -> Tree:
        branches = tree if isinstance(tree, list) else [tree]
        return ["null", *(self.type(branch, inside) for branch in branches if branch != "null")]
