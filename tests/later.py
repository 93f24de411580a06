"""Modules that are imported when they are first used."""

from __future__ import annotations

import importlib
from typing import Any


class ImportedLater:
    """Stands for a module, which is imported when an attribute of it is first used.

    For those that take long and that few tests use: each process that collects the tests imports all of these. The SDKs
    of OpenAI and Anthropic took more than a third of the time.
    """

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):  # pytest looks for marks of its own on whatever a module of tests has
            raise AttributeError(name)
        return getattr(importlib.import_module(self._name), name)
