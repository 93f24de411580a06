"""Ending every stream cleanly when the process stops, so that no deploy waits for them.

A signal handler may interrupt anything, also code that holds a lock: so it only wakes the watcher, whose thread does
the rest, and then hands on to the handler that was there before.
"""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from types import FrameType

from ..errors import CloseReason
from ..event import Event
from ..wire.encoder import encode
from .admission import gunicorn_worker, streams
from .watcher import watcher, watcher_if_any

__all__ = ["drain", "drain_on_signal"]

logger = logging.getLogger("ssesync")

_USUAL = [getattr(signal, name) for name in ("SIGTERM", "SIGINT", "SIGQUIT") if hasattr(signal, name)]
# How long a process whose signal means to die waits for its streams to have sent their last bytes.
_GOODBYE_SECONDS = 5.0


def drain(farewell: Event | None = None) -> None:
    """End all streams of this process, and admit no more.

    Each gets ``farewell``, if there is one, a reconnection time with jitter and the last chunk. A stream with
    ``drain="finish"`` goes on to its own end for up to ``drain_timeout``. Returns at once; may be called again.

    :param farewell: an event for clients that care to know.
    """
    streams.stopping = True
    last = b"" if farewell is None else encode(farewell)
    started = time.monotonic()

    def end_those_due() -> bool:
        waiting = False
        for stream in streams.all():
            if stream.settings.drain == "end" or time.monotonic() - started >= stream.settings.drain_timeout:
                stream.stop(CloseReason.SHUTDOWN, last)
            else:
                waiting = True
        return waiting

    if end_those_due():
        watcher().every_tick(end_those_due)


def drain_on_signal(*signals: int, farewell: Event | None = None) -> bool:
    """End all streams cleanly when one of the signals comes, before what else it does.

    Call it where the application is made, in the process that serves. With gunicorn's ``--preload`` that is too
    early; ``gunicorn -c python:ssesync.gunicorn`` does it at the right place.

    :param signals: without any SIGTERM, SIGINT and SIGQUIT, as far as the process does not ignore them.
    :param farewell: an event that each client gets before the end.
    :return: whether the handlers are set. They are not outside of the main thread, where Python sets none: under
        Django's reloader for one, which does not wait for streams.
    """
    if threading.current_thread() is not threading.main_thread():
        logger.debug("drain_on_signal() has no effect outside of the main thread")
        return False
    # Those that the process ignores, as in the background of a shell, go on being ignored unless they are asked for.
    usual = [each for each in _USUAL if signal.getsignal(each) != signal.SIG_IGN]
    for signum in signals or usual:
        if not isinstance(signal.getsignal(signum), _Handler):
            signal.signal(signum, _Handler(signum, farewell))
    # Under max_requests a gunicorn worker ends without a signal.
    streams.on_tick = lambda: _drain_with_worker(farewell)
    return True


class _Handler:
    """Drains, then does what the signal did before."""

    def __init__(self, signum: int, farewell: Event | None) -> None:
        self.previous = signal.getsignal(signum)
        self._farewell = farewell
        self._draining = False

    def __call__(self, signum: int, frame: FrameType | None) -> None:
        streams.stopping = True
        current = watcher_if_any()
        if current is not None:
            current.from_signal(lambda: drain(self._farewell))
        if callable(self.previous):
            self.previous(signum, frame)
        elif self.previous == signal.SIG_DFL:
            if current is None or self._draining:
                # Nothing is open, or this is the second time: now it does what it does by default.
                signal.signal(signum, signal.SIG_DFL)
                os.kill(os.getpid(), signum)
            else:
                self._draining = True
                current.from_signal(lambda: self._again_when_drained(signum))

    def _again_when_drained(self, signum: int) -> None:
        # A client that has stalled can't be told goodbye: after this long the process does without.
        finishing = [stream.settings.drain_timeout for stream in streams.all() if stream.settings.drain == "finish"]
        deadline = time.monotonic() + max(finishing, default=0.0) + _GOODBYE_SECONDS

        def look() -> bool:
            if streams.all() and time.monotonic() < deadline:
                return True
            os.kill(os.getpid(), signum)
            return False

        if look():
            watcher().every_tick(look)


def _drain_with_worker(farewell: Event | None) -> None:
    worker = gunicorn_worker()
    if worker is not None and not worker.alive and not streams.stopping:
        drain(farewell)
