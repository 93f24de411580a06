"""Fixtures for pytest, which finds them by itself where ssesync is installed.

Each imports what it needs when a test asks for it, so that pytest starts no slower for the tests that do not.
``-p no:ssesync`` leaves them out.
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
    """:func:`ssesync.testing.open_stream`; what it opens is closed when the test is over."""
    from .wsgi import open_stream

    with _closed_after(open_stream) as opened:
        yield opened


@pytest.fixture
def live_stream() -> Iterator[Callable[..., OpenStream]]:
    """:func:`ssesync.testing.live_stream`; what it opens is closed when the test is over."""
    from .live import live_stream

    with _closed_after(live_stream) as opened:
        yield opened


@pytest.fixture
def fake_sse_server() -> Iterator[FakeSSEServer]:
    """A :class:`ssesync.testing.FakeSSEServer` that listens while the test lasts."""
    from .fake_server import FakeSSEServer

    with FakeSSEServer() as server:
        yield server


@pytest.fixture
def fake_sse_clock() -> FakeClock:
    """A :class:`ssesync.testing.FakeClock`."""
    from .clock import FakeClock

    return FakeClock()
