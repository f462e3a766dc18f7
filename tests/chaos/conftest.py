"""Neighbours of the chaos tests, which are no package: loaded by path."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture(scope="session")
def table_checker() -> ModuleType:
    spec = importlib.util.spec_from_file_location("chaos_table_checker", Path(__file__).parent / "table_checker.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module
