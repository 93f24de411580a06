"""Fixtures for pytest, which finds them by itself if ssesync is installed.

Each imports its modules when a test requests it, so that they do not slow down pytest's start. ``-p no:ssesync``
disables them.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from .clock import FakeClock
    from .fake_server import FakeSSEServer
    from .stream import OpenStream

__all__ = ["fake_sse_clock", "fake_sse_server", "live_stream", "open_stream"]


@contextlib.contextmanager
def _closed_after(function: Callable[..., OpenStream]) -> Iterator[Callable[..., OpenStream]]:
    with contextlib.ExitStack() as stack:
        yield lambda *args, **options: stack.enter_context(function(*args, **options))


@pytest.fixture
def open_stream() -> Iterator[Callable[..., OpenStream]]:
    """:func:`ssesync.testing.open_stream`; its streams are closed after the test."""
    from .wsgi import open_stream

    with _closed_after(open_stream) as opened:
        yield opened


@pytest.fixture
def live_stream() -> Iterator[Callable[..., OpenStream]]:
    """:func:`ssesync.testing.live_stream`; its streams are closed after the test."""
    from .live import live_stream

    with _closed_after(live_stream) as opened:
        yield opened


@pytest.fixture
def fake_sse_server() -> Iterator[FakeSSEServer]:
    """A :class:`ssesync.testing.FakeSSEServer` that listens during the test."""
    from .fake_server import FakeSSEServer

    with FakeSSEServer() as server:
        yield server


@pytest.fixture
def fake_sse_clock() -> FakeClock:
    """A :class:`ssesync.testing.FakeClock`."""
    from .clock import FakeClock

    return FakeClock()
