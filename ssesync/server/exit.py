"""The end of a gunicorn worker: it waits for the streams and runs that finish, before it exits.

``drain`` says which streams finish (:class:`ssesync.Settings`). The wait is in gunicorn's hook ``worker_exit``, which
is set on the worker's own configuration, so that it needs no ``-c python:ssesync.gunicorn``. It is not in ``atexit``:
there ``concurrent.futures`` and asyncio's resolver refuse work ("cannot schedule new futures after shutdown"), and from
Python 3.12 on no thread starts, so a producer that needs either would fail in the middle of its answer. In
``worker_exit`` a producer can do all that it could before.

- The wait counts from the moment at which the process was told to stop, so no later SIGTERM makes it shorter or longer.
- SIGQUIT, SIGINT and a worker's timeout (SIGABRT) are not waited for: gunicorn's hooks for them are set as well.
- gunicorn kills a worker that is silent for ``--timeout`` seconds. The arbiter closes the worker's file for that before
  it calls ``worker_exit``, so a duplicate of its descriptor is made before (20 of 20 answers of workers that ended by
  ``max_requests`` with ``--timeout 3`` finished; without it none).
- A worker that ends by ``max_requests`` still counts as one, so gunicorn starts no other one while it waits. Where no
  other worker accepts, it asks the arbiter for one more (SIGTTIN), and takes that back (SIGTTOU) when it exits.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import time
from pathlib import Path
from types import FrameType
from typing import Any

from ..reactor import TICK, reactor_if_any
from ..text import escape
from .registry import streams
from .shutdown import drain, drain_quickly, seconds_to_finish
from .wsgi_server import gunicorn_worker

__all__ = ["finish", "prepare"]

logger = logging.getLogger("ssesync")

# Seconds between two looks at the streams that finish, and between two heartbeats.
_POLL = 0.1
# Seconds that the streams whose time is over get to be ended by the reactor's tick.
_TO_END = 2 * TICK


class _Worker:
    """What is kept of this process's worker."""

    def __init__(self, worker: Any) -> None:
        self._worker = worker
        #: Set where the worker is to exit at once.
        self.quickly = False
        try:
            self._heartbeat = os.dup(worker.tmp.fileno())
        except (OSError, ValueError):
            self._heartbeat = -1

    def install(self) -> None:
        """Set the hooks, in front of those that the configuration has."""
        cfg = self._worker.cfg
        at_exit, at_int, at_abort = cfg.worker_exit, cfg.worker_int, cfg.worker_abort

        def worker_exit(server: Any, worker: Any) -> None:
            try:
                finish(server, worker)
            finally:
                at_exit(server, worker)

        def worker_int(worker: Any) -> None:
            self._hurry()
            at_int(worker)

        def worker_abort(worker: Any) -> None:
            self._hurry()
            at_abort(worker)

        cfg.set("worker_exit", worker_exit)
        cfg.set("worker_int", worker_int)
        cfg.set("worker_abort", worker_abort)
        if streams.on_tick is None:
            streams.on_tick = self._tick

    def _tick(self) -> None:
        # A worker that has requests to answer, or keeps connections for a while, calls worker_exit only after these.
        if not self._worker.alive and not streams.stopping:
            drain()

    def _hurry(self) -> None:
        """SIGQUIT, SIGINT or SIGABRT has come. In a signal handler."""
        self.quickly = True
        streams.stopping = True
        if (current := reactor_if_any()) is not None:
            current.call_from_signal(drain_quickly)

    def send_heartbeat(self) -> None:
        """Tell the arbiter that the worker lives, as ``WorkerTmp.notify()`` does."""
        now = time.monotonic()
        with contextlib.suppress(OSError):
            os.utime(self._heartbeat, (now, now))

    def close(self) -> None:
        """Close the descriptor."""
        if self._heartbeat >= 0:
            os.close(self._heartbeat)


_current: dict[None, _Worker] = {}


def prepare(worker: Any = None) -> None:
    """Have this process's gunicorn worker wait for the streams that finish. Does nothing elsewhere, and nothing from
    the second call on.

    :param worker: gunicorn's, where it is known.
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
    """End the streams of a worker that exits, but for those that finish: wait for these. Any number of times.

    :param server: gunicorn's arbiter.
    :param worker: gunicorn's worker.
    """
    if worker.pid != os.getpid():
        return  # the arbiter calls the hook for a worker that it does not find, too
    prepare(worker)
    current = _current[None]
    if current.quickly:
        drain_quickly()
        return
    if streams.on_tick is not None:
        streams.on_tick()  # drain_on_signal() may have been given a last event
    if not streams.stopping:
        drain()
    limits = seconds_to_finish()
    if not limits:
        return
    deadline = (streams.stopping_since or time.monotonic()) + max(limits) + _TO_END
    for listener in worker.sockets:
        with contextlib.suppress(OSError):
            listener.close()  # a client that this worker will not accept must not wait for it
    substitute = _Substitute(server, worker)
    substitute.ask()
    try:
        while time.monotonic() < deadline and (seconds_to_finish() or substitute.must_wait()):
            current.send_heartbeat()
            time.sleep(_POLL)
    finally:
        substitute.release()


class _Substitute:
    """One more worker, for as long as this one waits and no other one accepts.

    SIGTTOU has the arbiter end its *oldest* worker. That is to be this one, so it asks only where all workers that are
    older wait as well, and leaves after these. Of the workers that were there when this one was started, those are
    known to wait that were too many by the configuration: the oldest of them.
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

    def ask(self) -> None:
        """Ask the arbiter for it, if it is wanted."""
        if self._is_wanted and self._send(signal.SIGTTIN):
            self._handler = _TermHandler()

    def must_wait(self) -> bool:
        """Whether an older worker has to leave first."""
        return self._handler is not None and any(map(self._is_there, self._older))

    def release(self) -> None:
        """Take it back. Not after a reload, by which the arbiter has its number of workers from the configuration
        again: it then sends this worker SIGTERM."""
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
                "asked for another worker: %s; it may run as another user",
                escape(error),
            )
            return False
        return True


class _TermHandler:
    """Notes SIGTERM, and hands on to the handler that was there before. Made on the main thread."""

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
        """Set the former handler."""
        signal.signal(signal.SIGTERM, self._handler)


def _after_fork() -> None:
    if (current := _current.pop(None, None)) is not None:
        current.close()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
