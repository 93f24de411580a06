"""Logs of the servers that a test uses, which its report shows if it fails."""

from __future__ import annotations

from collections.abc import Callable

import pytest

LOGS = pytest.StashKey[dict[Callable[[], str], str]]()
# The end of a log: of a server that lasts for many tests.
SHOWN = 20_000


def show_if_failed(test: pytest.Item, title: str, log: Callable[[], str]) -> None:
    """Have the report of a failure show this log."""
    test.stash.setdefault(LOGS, {})[log] = title
