"""The conditions under which the examples of the documentation run."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from ssesync.retry import Signal, SystemClock

from .feed import application, serving


@pytest.fixture(autouse=True)
def _waits_are_short(monkeypatch: pytest.MonkeyPatch) -> None:
    def wait(self: SystemClock, signal: Signal, seconds: float) -> bool:
        return signal.wait(min(seconds, 0.01))

    monkeypatch.setattr(SystemClock, "wait", wait)


@pytest.fixture(autouse=True)
def _files_go_elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def feed() -> Iterator[str]:
    with serving(application) as base:
        yield base
