"""Undoing a drain, which a process does only once in its life, and tests many times."""

from __future__ import annotations

import threading

from ssesync.reactor import reactor
from ssesync.server.registry import streams

TIMEOUT = 90


def undo_drain() -> None:
    """End all streams, and admit new ones.

    A drain that waited for some looks for them once more, at the next tick: it would end the streams of another test.
    """
    for stream in streams.all():
        stream.close()
    if streams.stopping:
        looked = threading.Event()
        reactor().every_tick(lambda: bool(looked.set()))
        assert looked.wait(TIMEOUT)
    streams.stopping = False
