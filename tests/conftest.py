"""Fixtures for every layer of tests."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from pipeline.local.stack import down, up


@dataclass(frozen=True, slots=True)
class EmbeddedStack:
    """A stack of this test session's own: a real Kafka broker and the registry, in a temporary HEADRACE_HOME."""

    bootstrap: str
    cluster_id: str
    registry_url: str
    home: Path


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedStack]:
    """Starts once for the session, on free ports, and sets HEADRACE_HOME to it; tests share it, so they name topics uniquely."""
    home = tmp_path_factory.mktemp("stack")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HEADRACE_HOME", str(home))
        running = up(home).stack
        try:
            yield EmbeddedStack(running.bootstrap, running.cluster_id, running.registry_url, home)
        finally:
            down(home)
            shutil.rmtree(home / "data", ignore_errors=True)
