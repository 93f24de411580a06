"""No test of the kit leaves a thread behind."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def _no_thread_is_left() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    for thread in set(threading.enumerate()) - before:
        # These last as long as the process.
        if not thread.name.startswith(("ssesync-reactor", "ssesync-caller")):
            thread.join(90)
            assert not thread.is_alive(), thread.name
