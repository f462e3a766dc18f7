"""The compiled part of ``put``, which is optional (pipeline/compiled/__init__.py); all else stands in pyproject.toml."""

from setuptools import Extension, setup

FOLDER = "pipeline/compiled"
CORE = Extension(
    "pipeline.compiled._core",
    [f"{FOLDER}/{name}.c" for name in ("encode", "entries", "module", "put")],
    depends=[f"{FOLDER}/core.h"],
    optional=True,
)
setup(ext_modules=[CORE])
