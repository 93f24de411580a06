"""The end of a gunicorn worker: it waits for the streams that move to another worker, and for the streams and runs that
finish, before it exits.

The setting ``drain`` decides which streams finish (:class:`ssesync.Settings`). The wait is in gunicorn's hook
``worker_exit``, which is set on the worker's own configuration, so that it needs no ``-c python:ssesync.gunicorn``. It
is not in ``atexit``: there ``concurrent.futures`` and asyncio's resolver refuse work ("cannot schedule new futures
after shutdown"), and from Python 3.12 on no thread starts, so a producer that needs either would fail in the middle of
its answer. In ``worker_exit`` a producer can still use both.

- The wait counts from the first request to stop, so no later SIGTERM makes it shorter or longer.
- There is no wait after SIGQUIT, SIGINT and a worker's timeout (SIGABRT): gunicorn's hooks for them are set as well.
- gunicorn kills a worker that sends no heartbeat for ``--timeout`` seconds. The arbiter closes the heartbeat's file
  before it calls ``worker_exit``, so a duplicate of its descriptor is made before (20 of 20 answers of workers that
  ended by ``max_requests`` with ``--timeout 3`` finished; without it none).
- A worker that ends by ``max_requests`` still counts as one, so gunicorn starts no other worker while it waits. If no
  other worker accepts, it requests one more from the arbiter (SIGTTIN), and one less (SIGTTOU) when it exits.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

from ..reactor import TICK, reactor_if_any
from ..text import escape
from . import transferring
from .registry import streams
from .shutdown import drain, drain_quickly, seconds_to_finish
from .wsgi_server import gunicorn_worker

__all__ = ["finish", "prepare"]

logger = logging.getLogger("ssesync")

# Seconds between two checks of the streams that finish, and between two heartbeats.
_POLL = 0.1
# Seconds within which the reactor's tick ends the streams whose time is over.
_TO_END = 2 * TICK


class _Worker:
    """The gunicorn worker of this process, its hooks and its heartbeat."""

    def __init__(self, worker: Any) -> None:
        self._worker = worker
        #: Whether the worker exits at once.
        self.quickly = False
        try:
            self._heartbeat = os.dup(worker.tmp.fileno())
        except (OSError, ValueError):
            self._heartbeat = -1

    def install(self) -> None:
        """Set the hooks, which then call those of the configuration."""
        cfg = self._worker.cfg
        at_exit, at_int, at_abort = cfg.worker_exit, cfg.worker_int, cfg.worker_abort

        def worker_exit(server: Any, worker: Any) -> None:
            try:
                finish(server, worker)
            finally:
                at_exit(server, worker)

        def worker_int(worker: Any) -> None:
            self._stop_quickly()
            at_int(worker)

        def worker_abort(worker: Any) -> None:
            self._stop_quickly()
            at_abort(worker)

        cfg.set("worker_exit", worker_exit)
        cfg.set("worker_int", worker_int)
        cfg.set("worker_abort", worker_abort)
        if streams.on_tick is None:
            streams.on_tick = self._tick

    def _tick(self) -> None:
        # A worker calls worker_exit only after all its requests and idle connections.
        if not self._worker.alive and not streams.stopping:
            drain()

    def _stop_quickly(self) -> None:
        """End the streams after SIGQUIT, SIGINT or SIGABRT. In a signal handler."""
        self.quickly = True
        streams.stopping = True
        if (current := reactor_if_any()) is not None:
            current.call_from_signal(drain_quickly)

    def send_heartbeat(self) -> None:
        """Send the arbiter a heartbeat, as ``WorkerTmp.notify()`` does."""
        now = time.monotonic()
        with contextlib.suppress(OSError):
            os.utime(self._heartbeat, (now, now))

    def wait_while(self, condition: Callable[[], object]) -> None:
        """Wait until a condition is false, with heartbeats."""
        while condition():
            self.send_heartbeat()
            time.sleep(_POLL)

    def close(self) -> None:
        """Close the descriptor."""
        if self._heartbeat >= 0:
            os.close(self._heartbeat)


_current: dict[None, _Worker] = {}


def prepare(worker: Any = None) -> None:
    """Make this process's gunicorn worker wait for the streams that finish. Only the first call has an effect, and only
    under gunicorn.

    :param worker: gunicorn's, if it is known.
    """
    worker = worker or gunicorn_worker()
    if worker is None or None in _current:
        return
    # No lock: the first one counts.
    made = _Worker(worker)
    if _current.setdefault(None, made) is made:
        made.install()
    else:
        made.close()


def finish(server: Any, worker: Any) -> None:
    """End the streams of a worker that exits, and wait for those that move or finish. Any number of times.

    :param server: gunicorn's arbiter.
    :param worker: gunicorn's worker.
    """
    if worker.pid != os.getpid():
        return  # the arbiter also calls the hook for a worker that does not run any more
    prepare(worker)
    current = _current[None]
    if current.quickly:
        drain_quickly()
        return
    if streams.on_tick is not None:
        streams.on_tick()  # drain_on_signal() may have been given a last event
    if not streams.stopping:
        drain()
    since = streams.stopping_since or time.monotonic()
    transferring.begin(since, lambda: None)  # the reactor may not have done it yet
    # Streams move to workers that run already, so this needs no substitute.
    if (seconds := transferring.seconds_to_move()) is not None:
        _stop_accepting(worker)
        deadline = since + seconds + _TO_END
        current.wait_while(lambda: time.monotonic() < deadline and transferring.seconds_to_move() is not None)
    limits = seconds_to_finish()
    if not limits:
        return
    deadline = since + max(limits) + _TO_END
    _stop_accepting(worker)
    substitute = _Substitute(server, worker)
    substitute.request()
    try:
        current.wait_while(lambda: time.monotonic() < deadline and (seconds_to_finish() or substitute.must_wait()))
    finally:
        substitute.release()


def _stop_accepting(worker: Any) -> None:
    for listener in worker.sockets:
        with contextlib.suppress(OSError):
            listener.close()  # a client that this worker will not accept must not wait for it


class _Substitute:
    """One more worker, while this one waits and no other one accepts.

    On SIGTTOU the arbiter ends its *oldest* worker. That must be this one, so it requests a worker only if all older
    workers wait as well, and exits after these. Among the workers that ran when this one was started, the oldest are
    known to wait: as many as exceed the configured number.
    """

    def __init__(self, server: Any, worker: Any) -> None:
        self._arbiter: int = worker.ppid
        # The siblings that there were when this process was forked.
        ages = sorted((sibling.age, pid) for pid, sibling in server.WORKERS.items() if pid != worker.pid)
        self._older = [pid for _, pid in ages]
        waiting = max(0, len(ages) + 1 - int(worker.cfg.workers))
        others = self._older[waiting:]
        self._is_wanted = worker.nr >= worker.max_requests and not any(map(self._is_there, others))
        self._handler: _TermHandler | None = None

    def request(self) -> None:
        """Request it from the arbiter, if it is needed."""
        if self._is_wanted and self._send(signal.SIGTTIN):
            self._handler = _TermHandler()

    def must_wait(self) -> bool:
        """Whether an older worker has to exit first."""
        return self._handler is not None and any(map(self._is_there, self._older))

    def release(self) -> None:
        """Request one worker less. Not after a reload: it resets the arbiter's number of workers to the configured one,
        and the arbiter sends this worker SIGTERM."""
        if self._handler is not None:
            self._handler.remove()
            if not self._handler.called:
                self._send(signal.SIGTTOU)

    def _is_there(self, pid: int) -> bool:
        """Whether a process is a worker of the same arbiter, and runs."""
        try:
            os.kill(pid, 0)
            status = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except FileNotFoundError:
            return not Path("/proc/self/stat").exists()  # only Linux has it
        except OSError:
            return False
        return status[0] != "Z" and int(status[1]) == self._arbiter

    def _send(self, signum: signal.Signals) -> bool:
        if os.getppid() != self._arbiter:
            return False
        try:
            os.kill(self._arbiter, signum)
        except OSError as error:
            logger.warning(
                "no client is accepted until the streams of this worker have finished, as gunicorn's arbiter can't be "
                "sent a request for another worker: %s; it may run as another user",
                escape(error),
            )
            return False
        return True


class _TermHandler:
    """Notes SIGTERM, and calls the previous handler. Made on the main thread."""

    def __init__(self) -> None:
        self._handler: Any = signal.getsignal(signal.SIGTERM)
        #: gunicorn's own handler, by which :func:`gunicorn_worker` finds the worker.
        self.previous = getattr(self._handler, "previous", self._handler)
        self.called = False
        signal.signal(signal.SIGTERM, self)

    def __call__(self, signum: int, frame: FrameType | None) -> None:
        self.called = True
        if callable(self._handler):
            self._handler(signum, frame)

    def remove(self) -> None:
        """Restore the previous handler."""
        signal.signal(signal.SIGTERM, self._handler)


def _after_fork() -> None:
    if (current := _current.pop(None, None)) is not None:
        current.close()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
