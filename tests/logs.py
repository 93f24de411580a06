"""Logs of the servers that a test uses, which its report shows if it fails."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

import ssesync

LOGS = pytest.StashKey[dict[Callable[[], str], str]]()
# The end of a log: of a server that lasts for many tests.
SHOWN = 20_000


def show_if_failed(test: pytest.Item, title: str, log: Callable[[], str]) -> None:
    """Have the report of a failure show this log."""
    test.stash.setdefault(LOGS, {})[log] = title


def without_paths(log: str) -> str:
    """The log, whose tracebacks name files as the project calls them, and other people's not at all.

    Where the project lies is its user's affair: ``git clone`` makes a folder that is called as the library is, and an
    environment in it has Django's files under that name too.
    """
    root = Path(ssesync.__file__).resolve().parents[1]

    def shortened(found: re.Match[str]) -> str:
        path = Path(found[1])
        return f'File "{path.relative_to(root) if path.is_relative_to(root) else "…"}"'

    return re.sub('File "([^"]*)"', shortened, log)
