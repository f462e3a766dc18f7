"""Names of subjects: contexts (``:.team:orders``) and what a valid name is."""

from __future__ import annotations

from typing import Final

DEFAULT_CONTEXT: Final = "."
GLOBAL_CONTEXT: Final = ".__GLOBAL"
WILDCARD_PREFIX: Final = ":*:"


def split(subject: str | None) -> tuple[str, str]:
    """(context, name) of a subject. A plain name is in the default context."""
    if not subject or not subject.startswith(":."):
        return DEFAULT_CONTEXT, subject or ""
    context, _, name = subject[1:].partition(":")
    return context, name


def context_of(subject: str | None) -> str:
    return split(subject)[0]


def normalize(subject: str) -> str:
    """``:.:name`` is ``name``: the default context is not written."""
    context, name = split(subject)
    return name if context == DEFAULT_CONTEXT else f":{context}:{name}"


def beside(subject: str, parent: str) -> str:
    """``subject`` as a schema of ``parent`` names it: an unqualified name is in the parent's context."""
    context = context_of(parent)
    return subject if subject.startswith(":.") or context == DEFAULT_CONTEXT else f":{context}:{subject}"


def is_valid(subject: str, *, for_setting: bool = False) -> bool:
    """No control characters, none of the reserved names; the global context takes settings only."""
    if any(ord(char) < 32 or 127 <= ord(char) < 160 for char in subject):
        return False
    context, name = split(subject)
    if name in ("__GLOBAL", "__EMPTY"):
        return False
    return for_setting or (context != GLOBAL_CONTEXT and name not in ("", "*"))


def matches_prefix(subject: str, prefix: str) -> bool:
    """Confluent's ``subjectPrefix``: ``:*:x`` looks in every context."""
    if prefix.startswith(WILDCARD_PREFIX):
        return split(subject)[1].startswith(prefix[len(WILDCARD_PREFIX) :])
    return subject.startswith(prefix) and (prefix.startswith(":.") or context_of(subject) == DEFAULT_CONTEXT)
