"""Ending every stream when the process stops, so that no deploy waits for streams whose clients reconnect.

A signal handler may interrupt code that holds a lock. So it only wakes the reactor, whose thread ends the streams, and
then calls the handler that was set before.
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
from ..executor import callers
from ..reactor import reactor, reactor_if_any, run_foreign
from ..settings import Settings
from ..text import escape
from ..wire.encoder import encode
from . import transferring
from .registry import streams
from .wsgi_server import gunicorn_worker

__all__ = ["RESERVE", "drain", "drain_on_signal"]

logger = logging.getLogger("ssesync")

_QUICK = [getattr(signal, name) for name in ("SIGINT", "SIGQUIT") if hasattr(signal, name)]
_USUAL = [getattr(signal, name) for name in ("SIGTERM", "SIGINT", "SIGQUIT") if hasattr(signal, name)]
# Seconds that a process waits after a signal for its streams to send their last bytes.
_LAST_BYTES_SECONDS = 5.0
# Seconds that it waits after them for ``on_close`` and for the lines in the log.
_CALLS_SECONDS = 2.0
#: Seconds of gunicorn's graceful timeout that are left to send the last bytes, and to exit.
RESERVE = 2.0


def drain(farewell: Event | None = None) -> None:
    """End all streams of this process, and admit no more.

    Each client is sent the last event, if one is given, a reconnection time with jitter, and the last chunk. Streams
    that finish (``Settings.drain``) continue to their own end within their time limit. A stream that still runs then is
    named in the log, and its client is sent the last event, an error event and an incomplete answer, unless it can
    resume. Streams that move to another process don't end. Returns at once. May be called again.

    :param farewell: the last event.
    """
    _drain(farewell)


def _drain(last_event: Event | None, *, quickly: bool = False) -> None:
    """:param quickly: end also the streams with ``drain="auto"`` at once, and those that could move elsewhere."""
    streams.stopping = True
    last = b"" if last_event is None else encode(last_event)
    # From the first request to stop: another signal makes the time to finish neither longer nor shorter.
    started = streams.stopping_since or time.monotonic()

    def end_those_due() -> bool:
        waiting = False
        for stream in streams.all():
            if stream.reason is not None:
                continue
            if transferring.may_move(stream):
                waiting = True
                continue
            finishes = stream.finishes and not (quickly and stream.settings.drain == "auto")
            if finishes and time.monotonic() - started < time_to_finish(stream.settings):
                waiting = True
                continue
            if finishes:
                # Before the end: the process may exit after its last stream, and waits for no helper thread.
                run_foreign(functools.partial(_log_unfinished, stream.name, stream.settings))
            stream.stop(CloseReason.SHUTDOWN, last)
            # A stream that is being opened may not have been stopped.
            waiting = waiting or stream.reason is None
        if waiting:
            _keep_worker_alive()
        return waiting

    if quickly:
        transferring.abandon()
    else:
        transferring.begin(started, lambda: reactor().call_soon(end_those_due))
    if end_those_due():
        reactor().every_tick(end_those_due)


def drain_quickly() -> None:
    """End all streams but those with ``drain="finish"``: the process stops at once."""
    _drain(None, quickly=True)


def time_to_finish(settings: Settings) -> float:
    """The time limit of a stream that finishes. gunicorn kills the worker after its graceful timeout.

    :param settings: the stream's.
    :return: seconds.
    """
    worker = gunicorn_worker()
    if worker is None:
        return settings.drain_timeout
    graceful: float = worker.cfg.graceful_timeout
    return min(settings.drain_timeout, max(0.0, graceful - RESERVE))


def seconds_to_finish() -> list[float]:
    """Find the streams that finish, and the runs, when the process stops.

    :return: the seconds that each of them may take, from the first request to stop.
    """
    finishing = [time_to_finish(stream.settings) for stream in streams.all() if stream.finishes]
    return finishing + streams.work_to_finish()


def _log_unfinished(name: str, settings: Settings) -> None:
    worker = gunicorn_worker()
    limit = "" if worker is None else f"; gunicorn's --graceful-timeout is {worker.cfg.graceful_timeout} s"
    logger.warning(
        "the event stream %s was still running %g s after the process began to stop, and is ended: drain=%r, "
        "drain_timeout=%g%s",
        escape(name), time_to_finish(settings), settings.drain, settings.drain_timeout, escape(limit),
    )  # fmt: skip


def _keep_worker_alive() -> None:
    """Send gunicorn's arbiter a heartbeat: a sync worker sends it only between requests."""
    worker = gunicorn_worker()
    if worker is not None and not worker.alive:
        with contextlib.suppress(OSError, ValueError):  # its file is closed already
            worker.notify()


def drain_on_signal(*signals: int, farewell: Event | None = None) -> bool:
    """End all streams on a signal, before its previous handler runs; see :func:`drain`.

    On SIGINT and SIGQUIT, streams with ``drain="auto"`` don't finish.

    Call it where the application is made, in the process that serves. With gunicorn's ``--preload`` that is too
    early; ``gunicorn -c python:ssesync.gunicorn`` does it at the right place.

    :param signals: the signals; if none is given, those of SIGTERM, SIGINT and SIGQUIT that the process does not
        ignore.
    :param farewell: an event that is sent to each client last.
    :return: whether the handlers are set. Python sets none outside of the main thread, as under Django's reloader,
        which does not wait for streams.
    """
    if threading.current_thread() is not threading.main_thread():
        logger.debug("drain_on_signal() has no effect outside of the main thread")
        return False
    # A process in the background of a shell ignores some of them. They stay ignored unless they are given.
    usual = [each for each in _USUAL if signal.getsignal(each) != signal.SIG_IGN]
    for signum in signals or usual:
        if not isinstance(signal.getsignal(signum), _Handler):
            signal.signal(signum, _Handler(signum, farewell))
    # gunicorn's max_requests ends a worker without a signal.
    streams.on_tick = lambda: _drain_with_worker(farewell)
    return True


class _Handler:
    """A signal handler that drains, then calls the previous handler."""

    def __init__(self, signum: int, last_event: Event | None) -> None:
        self.previous = signal.getsignal(signum)
        self._last_event = last_event
        self._draining = False

    def __call__(self, signum: int, frame: FrameType | None) -> None:
        streams.stopping = True
        current = reactor_if_any()
        if current is not None:
            # Ctrl-C and gunicorn's quick stop must not wait.
            quickly = signum in _QUICK
            current.call_from_signal(lambda: _drain(self._last_event, quickly=quickly))
        if callable(self.previous):
            self.previous(signum, frame)
        elif self.previous == signal.SIG_DFL:
            if current is None or self._draining:
                # No stream was opened, or this is the second signal: take the default action.
                signal.signal(signum, signal.SIG_DFL)
                os.kill(os.getpid(), signum)
            else:
                self._draining = True
                current.call_from_signal(lambda: self._again_when_drained(signum))

    def _again_when_drained(self, signum: int) -> None:
        # A stalled client does not read its last bytes: the process does not wait longer for it.
        deadline = time.monotonic() + max(seconds_to_finish(), default=0.0) + _LAST_BYTES_SECONDS
        ended = 0.0

        def check() -> bool:
            nonlocal ended
            now = time.monotonic()
            if (streams.all() or streams.work_to_finish()) and now < deadline:
                return True
            ended = ended or now
            if not callers().is_idle and now < ended + _CALLS_SECONDS:
                return True  # on_close, and the log's line of each stream
            os.kill(os.getpid(), signum)
            return False

        if check():
            reactor().every_tick(check)


def _drain_with_worker(last_event: Event | None) -> None:
    worker = gunicorn_worker()
    if worker is not None and not worker.alive and not streams.stopping:
        _drain(last_event)
