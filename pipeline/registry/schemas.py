"""Schemas as the registry judges them: type, references resolved, canonical text. Pure, over a state.

Parsed trees are remembered (they are the dear part of a compatibility check); a schema's text and those of its references
decide what a tree is, so remembering is safe.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Final

import avro.errors
import avro.name
import avro.schema

from pipeline.errors import SchemaError
from pipeline.registry import errors, subjects
from pipeline.registry.records import Reference, SchemaVersion, guid_of
from pipeline.registry.state import RegistryState
from pipeline.schema.avro_tree import Tree, load_json, parse_tree
from pipeline.schema.canonical import canonical_text, normalized_text
from pipeline.schema.default_values import check_defaults

REFERENCES_MAX: Final = 200


@dataclass(frozen=True, slots=True)
class SchemaRequest:
    """What a client sent. ``version`` 0 and ``id`` -1: the registry chooses."""

    schema: str
    schema_type: str = "AVRO"
    references: tuple[Reference, ...] = ()
    metadata: dict[str, Any] | None = None
    rule_set: dict[str, Any] | None = None
    version: int = 0
    id: int = -1


@dataclass(frozen=True, slots=True)
class Judged:
    """A request whose schema was found valid, in canonical form."""

    request: SchemaRequest
    tree: Tree

    @property
    def guid(self) -> str:
        return guid_of(self.request.schema, self.request.references, self.request.metadata, self.request.rule_set)


def judge(state: RegistryState, subject: str, request: SchemaRequest, *, normalize: bool = False, strict: bool = True) -> Judged:
    """The request in canonical form. Raises ``RegistryError`` 42201 with the reason.

    ``strict`` is for schemas that are to be registered: names, defaults, and PyPI's ``avro`` as a second judge.
    """
    if request.schema_type.upper() != "AVRO":
        raise errors.unsupported_type(request.schema_type)
    if not request.schema.strip():
        raise errors.invalid_schema("it is empty")
    texts = resolve(state, subject, request.references)
    try:
        tree = parsed(request.schema, texts, strict)
    except SchemaError as error:
        raise errors.invalid_schema(str(error)) from error
    references = request.references
    if normalize:
        references = tuple(sorted(set(references)))
        tree = parsed(normalized_text(tree), texts, False)
    return Judged(replace(request, schema=canonical_text(tree), references=references, schema_type="AVRO"), tree)


def tree_of(state: RegistryState, version: SchemaVersion) -> Tree:
    """The tree of a registered schema, read leniently. Raises ``RegistryError``."""
    if version.schema_type != "AVRO":
        raise errors.unsupported_type(version.schema_type)
    texts = resolve(state, version.subject, version.references, deleted=True)
    try:
        return parsed(version.schema, texts, False)
    except SchemaError as error:
        raise errors.invalid_schema(f"version {version.version} of '{version.subject}' cannot be read: {error}") from error


def resolve(state: RegistryState, subject: str, references: tuple[Reference, ...], *, deleted: bool = False) -> tuple[str, ...]:
    """Texts of all referenced schemas, directly or through others; those without references of their own come first."""
    texts: list[str] = []
    seen: set[tuple[str, int]] = set()
    # (reference, parent subject, whether its own references were added): a stack, so no depth is too deep.
    stack = [(reference, subject, False) for reference in reversed(references)]
    while stack:
        reference, parent, ready = stack.pop()
        name = subjects.normalize(subjects.beside(reference.subject, parent))
        found = state.version(name, reference.version, deleted=deleted)
        if found is None:
            raise errors.invalid_schema(
                f"the reference '{reference.name}' leads to version {reference.version} of subject '{reference.subject}', "
                "which is not registered"
            )
        if ready:
            texts.append(found.schema)
            continue
        key = (found.subject, found.version)
        if key in seen:
            continue
        if len(seen) >= REFERENCES_MAX:
            raise errors.invalid_schema(f"it refers to more than {REFERENCES_MAX} schemas")
        seen.add(key)
        stack.append((reference, parent, True))
        stack.extend((inner, found.subject, False) for inner in reversed(found.references))
    return tuple(texts)


@lru_cache(maxsize=512)
def parsed(text: str, references: tuple[str, ...], strict: bool) -> Tree:
    """Raises ``SchemaError``. Trees are shared: never change one."""
    tree = parse_tree(text, references, strict=strict)
    if strict:
        check_defaults(tree.root)
        _second_judge(text, references)
    return tree


def _second_judge(text: str, references: tuple[str, ...]) -> None:
    """PyPI's ``avro`` must take the schema too: what it refuses, other implementations refuse."""
    names = avro.name.Names()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a logical type on the wrong type is ignored, as Avro says
            for one in (*references, text):
                # A bare name is how Java's parser and some clients write a primitive.
                avro.schema.make_avsc_object(load_json(one) if one.lstrip()[:1] in '{["' else one.strip(), names)
    except SchemaError:
        raise
    except (avro.errors.AvroException, RecursionError, TypeError, ValueError, AttributeError, KeyError) as error:
        raise SchemaError(f"Avro's reference library refuses it: {' '.join(str(error).split())[:300]}") from error
