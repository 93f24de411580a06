"""Ending every stream when the process stops, so that no deploy waits for those whose clients come back.

A signal handler may interrupt anything, also code that holds a lock: so it only wakes the reactor, whose thread does
the rest, and then hands on to the handler that was there before.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import signal
import threading
import time
from types import FrameType

from ..errors import CloseReason
from ..event import Event
from ..reactor import reactor, reactor_if_any, run_foreign
from ..settings import Settings
from ..text import escape
from ..wire.encoder import encode
from .registry import streams
from .wsgi_server import gunicorn_worker

__all__ = ["drain", "drain_on_signal"]

logger = logging.getLogger("ssesync")

_QUICK = [getattr(signal, name) for name in ("SIGINT", "SIGQUIT") if hasattr(signal, name)]
_USUAL = [getattr(signal, name) for name in ("SIGTERM", "SIGINT", "SIGQUIT") if hasattr(signal, name)]
# Seconds for which a process that a signal is to end waits for its streams to send their last bytes.
_LAST_BYTES_SECONDS = 5.0
# Seconds of gunicorn's graceful timeout that are left to send the last bytes, and to exit.
_RESERVE = 2.0


def drain(farewell: Event | None = None) -> None:
    """End all streams of this process, and admit no more.

    Each gets ``farewell``, if there is one, a reconnection time with jitter and the last chunk. Streams that are to
    finish (``Settings.drain``) go on to their own end for as long as they may; one that is still running then is
    named in the log, and its client gets ``farewell``, an error event and an incomplete answer, unless it can resume.
    Returns at once; may be called again.

    :param farewell: an event that each client gets before the end.
    """
    _drain(farewell)


def _drain(farewell: Event | None, *, quickly: bool = False) -> None:
    """:param quickly: let only those finish whose setting says so."""
    streams.stopping = True
    last = b"" if farewell is None else encode(farewell)
    started = time.monotonic()

    def end_those_due() -> bool:
        waiting = False
        for stream in streams.all():
            if stream.reason is not None:
                continue
            finishes = stream.finishes and not (quickly and stream.settings.drain == "auto")
            if finishes and time.monotonic() - started < time_to_finish(stream.settings):
                waiting = True
                continue
            if finishes:
                # First: with its last stream the process may exit, and waits for no helper thread.
                run_foreign(functools.partial(_log_unfinished, stream.name, stream.settings))
            stream.stop(CloseReason.SHUTDOWN, last)
            # A stream that was just being opened may have missed it.
            waiting = waiting or stream.reason is None
        if waiting:
            _keep_worker_alive()
        return waiting

    if end_those_due():
        reactor().every_tick(end_those_due)


def time_to_finish(settings: Settings) -> float:
    """The seconds for which a stream that finishes may go on. After its graceful timeout gunicorn kills the worker."""
    worker = gunicorn_worker()
    if settings.drain == "finish" or worker is None:
        return settings.drain_timeout
    graceful: float = worker.cfg.graceful_timeout
    return min(settings.drain_timeout, max(0.0, graceful - _RESERVE))


def _log_unfinished(name: str, settings: Settings) -> None:
    worker = gunicorn_worker()
    limit = "" if worker is None else f"; gunicorn's --graceful-timeout is {worker.cfg.graceful_timeout} s"
    logger.warning(
        "the event stream %s was still running %g s after the process was told to stop, and is ended: drain=%r, "
        "drain_timeout=%g%s",
        escape(name), time_to_finish(settings), settings.drain, settings.drain_timeout, escape(limit),
    )  # fmt: skip


def _keep_worker_alive() -> None:
    """Send gunicorn's arbiter the heartbeat that a sync worker sends only between requests."""
    worker = gunicorn_worker()
    if worker is not None and not worker.alive:
        with contextlib.suppress(OSError, ValueError):  # its file is closed already
            worker.notify()


def drain_on_signal(*signals: int, farewell: Event | None = None) -> bool:
    """End all streams when one of the signals comes, before what else it does; see :func:`drain`.

    On SIGINT and SIGQUIT, streams with ``drain="auto"`` don't finish.

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
        current = reactor_if_any()
        if current is not None:
            # Ctrl-C, and gunicorn's quick stop, are not to wait.
            quickly = signum in _QUICK
            current.call_from_signal(lambda: _drain(self._farewell, quickly=quickly))
        if callable(self.previous):
            self.previous(signum, frame)
        elif self.previous == signal.SIG_DFL:
            if current is None or self._draining:
                # Nothing is open, or this is the second time: now it does what it does by default.
                signal.signal(signum, signal.SIG_DFL)
                os.kill(os.getpid(), signum)
            else:
                self._draining = True
                current.call_from_signal(lambda: self._again_when_drained(signum))

    def _again_when_drained(self, signum: int) -> None:
        # A client that has stalled does not read its last bytes: after this long the process ends without.
        finishing = [time_to_finish(stream.settings) for stream in streams.all() if stream.finishes]
        deadline = time.monotonic() + max(finishing, default=0.0) + _LAST_BYTES_SECONDS

        def check() -> bool:
            if streams.all() and time.monotonic() < deadline:
                return True
            os.kill(os.getpid(), signum)
            return False

        if check():
            reactor().every_tick(check)


def _drain_with_worker(farewell: Event | None) -> None:
    worker = gunicorn_worker()
    if worker is not None and not worker.alive and not streams.stopping:
        drain(farewell)
