"""The reactor: one thread per process that waits for descriptors and timers, and runs calls from other threads.

It has two users. ``server/liveness.py`` watches served streams: the reactor calls it back when a client leaves whose
connection the WSGI server owns. ``detached/connections.py`` serves detached connections and adds their descriptors.
No callback on this thread may wait: it closes a mailbox, or sends as many bytes as the kernel accepts at once. Users'
code may wait, so it runs on other threads, see :func:`run_foreign`.

Under gevent the thread is a greenlet, see ``pollers.py``.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any, Protocol

from .executor import callers
from .locks import make_rlock
from .pollers import Poller, make_poller
from .thread_start import ThreadStart
from .timers import Timer, Timers

__all__ = ["TICK", "Reactor", "Timer", "reactor", "reactor_if_any", "run_foreign"]

logger = logging.getLogger("ssesync")

#: Seconds between two ticks. Lifetimes and stalled sends are checked at ticks: both are counted in tens of seconds.
TICK = 0.5

Callback = Callable[[], object]
Tick = Callable[[], bool]


class Handler(Protocol):
    """An object with a descriptor that belongs to the reactor."""

    def on_event(self, gone: bool, writable: bool) -> object:
        """Called on the reactor's thread, perhaps before :meth:`Reactor.add`.

        :param gone: whether the descriptor's peer is gone.
        :param writable: whether the descriptor is writable.
        """


class Reactor:
    """See the module, and :func:`reactor`."""

    def __init__(self, poller: Poller | None = None) -> None:
        self._poller = poller or make_poller()
        #: Called on the reactor's thread when it can't wait for descriptors.
        self.on_failure: list[Callback] = []
        #: The objects of all descriptors of :meth:`call_to_add` and :meth:`add`, until :meth:`remove`.
        self.added: dict[int, Handler] = {}
        self._read: dict[int, Callback] = {}
        self._watched: dict[int, tuple[Callback, bool]] = {}
        # Protects _watched. Re-entrant: a signal handler that has interrupted a holder may end a stream, which takes
        # it.
        self._lock = make_rlock("reactor")
        self._calls: deque[Callback] = deque()
        self._awake = False  # whether it makes new calls without being woken
        self._ticks: dict[Tick, None] = {}
        self._timers = Timers(self.every_tick, self._call)
        self._start = ThreadStart(self._run, "reactor", "the end of clients' connections is noticed late")
        self._closed = False
        self._ident = 0
        self._pipe = os.pipe()  # its read end and its write end, to wake the thread
        for fd in self._pipe:
            os.set_blocking(fd, False)
        self._poller.read(self._pipe[0])

    def start(self) -> None:
        """Start the thread, which also runs the calls that were added before. Any number of times: if no thread can be
        started now, a later call tries again."""
        self._start()

    def require_thread(self) -> None:
        """Start the thread, and wait until it runs.

        :raises RuntimeError: no other thread can be started now.
        """
        self._start.require()

    # Any thread.

    def call_soon(self, call: Callback) -> None:
        """Call on the reactor's thread, after all calls that were added before. Takes no lock."""
        self._calls.append(call)
        if not self._awake:
            self._awake = True
            self._wake()

    def call_to_add(self, fd: int, handler: Handler, call: Callback, *, half_close: bool = True) -> None:
        """Request a call that will :meth:`add` a descriptor, without waking the thread: the wake-up took the largest
        part of a hand-over's processor time. The thread makes the call when it wakes for another reason, such as the
        end of this connection, or at the next tick. Takes no lock."""
        # Before the call is queued: until then the descriptor is not closed, so its number can't be another file's.
        self.added[fd] = handler
        is_watched = self._poller.adds_on_any_thread
        if is_watched:
            try:
                self._poller.add(fd, half_close)
            except OSError:
                is_watched = False  # add() reports the error
        self._calls.append(call)
        if not (is_watched and self._ticks):
            self._awake = True
            self._wake()

    def call_from_signal(self, call: Callback) -> None:
        """As :meth:`call_soon`, for signal handlers. A handler may interrupt a thread after it has set the flag and
        before it writes to the pipe. If the handler raises, that thread never writes: so this always does."""
        self._calls.append(call)
        self._wake()

    def every_tick(self, callback: Tick) -> None:
        """Call back every ``TICK`` seconds for as long as the callback returns True. A callback is kept once. Takes no
        lock."""
        if callback not in self._ticks:
            self._ticks[callback] = None
            self._wake()  # the thread may wait without a timeout

    def call_later(self, seconds: float, call: Callback) -> Timer:
        """Call on the reactor's thread at the first tick after so many seconds.

        :return: the timer, which can be cancelled.
        """
        return self._timers.add(time.monotonic() + seconds, call)

    def watch(self, fd: int, callback: Callback, *, half_close: bool = True) -> bool:
        """Call back once when the peer of a server's descriptor has closed its connection.

        :param half_close: also when the peer only stops sending.
        :return: whether the system can report that.
        """
        with self._lock:
            self._watched[fd] = callback, half_close
            try:
                self._poller.watch(fd, half_close)
            except FileExistsError:
                # An earlier stream on this descriptor was never closed; its callback is replaced by now.
                self._poller.remove(fd)
                self._poller.watch(fd, half_close)
            except OSError:
                del self._watched[fd]
                return False
        return True

    def unwatch(self, fd: int, callback: Callback) -> None:
        """Undo :meth:`watch`, before the descriptor is closed. Not an error after the callback."""
        with self._lock:
            if self._watched.get(fd, (None,))[0] != callback:
                return
            del self._watched[fd]
            try:
                self._poller.remove(fd)
            except OSError:
                pass  # it is closed already

    @property
    def is_this_thread(self) -> bool:
        """Whether this is called on the reactor's thread."""
        return threading.get_ident() == self._ident

    def close(self) -> None:
        """Close the reactor's own descriptors: in a forked child, which has none of its parent's threads, or of a
        reactor that was not started."""
        self._closed = True
        # Removed first: a thread of a forked child may still write to a stream of the parent, and so call _wake().
        fds, self._pipe = self._pipe, (-1, -1)
        for fd in fds:
            os.close(fd)
        self._poller.close()

    # The reactor's thread.

    def add(self, fd: int, handler: Handler, *, half_close: bool = True) -> None:
        """Call back when the peer of a descriptor is gone, until the descriptor is removed.

        :raises OSError: the system can't watch one more.
        """
        try:
            self._poller.add(fd, half_close)
        except FileExistsError:
            pass  # call_to_add() has added it
        self.added[fd] = handler

    def set_writable(self, fd: int, wanted: bool, *, half_close: bool = True) -> None:
        """Call back also, or no longer, when the descriptor is writable.

        :raises OSError: the system can't do that.
        """
        self._poller.set_writable(fd, half_close, wanted)

    def remove(self, fd: int) -> None:
        """Undo :meth:`add`, before the descriptor is closed. Any number of times."""
        if self.added.pop(fd, None) is not None:
            try:
                self._poller.remove(fd)
            except OSError:
                pass  # other code has closed it

    def read(self, fd: int, callback: Callback) -> None:
        """Call back while a descriptor is readable, an end or an error included.

        :raises OSError: the system can't do that for one more.
        """
        self._poller.read(fd)
        self._read[fd] = callback

    def stop_reading(self, fd: int) -> None:
        """Undo :meth:`read`, before the descriptor is closed. Any number of times."""
        if self._read.pop(fd, None) is not None:
            try:
                self._poller.remove(fd)
            except OSError:
                pass  # other code has closed it

    def _wake(self) -> None:
        try:
            os.write(self._pipe[1], b"x")
        except OSError:
            pass  # the pipe is full: the reactor wakes in any case

    def _run(self) -> None:
        self._ident = threading.get_ident()
        due: float | None = None
        while True:
            if not self._ticks:
                due = None
            elif due is None:
                due = time.monotonic() + TICK
            # In this order: a call that is added after this line wakes the reactor, an earlier one is made below.
            self._awake = False
            timeout = None if due is None else max(0.0, due - time.monotonic())
            try:
                ready = list(self._poller.wait(0 if self._calls else timeout))
                self._awake = True
            except Exception as error:
                if self._closed:
                    # A forked child has the parent's greenlet too. threading has no record of it, and fails at its end.
                    threading.Event().wait()
                self._fail(error)
                ready = []
            for fd, gone, writable in ready:
                if (callback := self._read.get(fd)) is not None:
                    self._call(callback)
                else:
                    self._dispatch(fd, gone, writable)
            # Calls that are added meanwhile are made in the next turn: one busy channel must not block other streams.
            for _ in range(len(self._calls)):
                self._call(self._calls.popleft())
            if due is not None and time.monotonic() >= due:
                due = None
                self._tick()

    def _dispatch(self, fd: int, gone: bool, writable: bool) -> None:
        if (handler := self.added.get(fd)) is not None:
            self._call(lambda: handler.on_event(gone, writable))
        elif fd == self._pipe[0]:
            try:
                os.read(fd, 4096)
            except OSError:
                pass  # the pipe is empty
        elif gone:
            self._hung_up(fd)

    def _hung_up(self, fd: int) -> None:
        with self._lock:
            callback, half_close = self._watched.get(fd, (None, True))
            # Since the report, the descriptor may have been unwatched and closed, and its number be another
            # connection's. That can't happen under the lock.
            if callback is None or not self._poller.is_hung_up(fd, half_close):
                return
        self._call(callback)

    def _tick(self) -> None:
        for callback in list(self._ticks):
            # Removed first: a callback that is added again while it returns False must be kept.
            del self._ticks[callback]
            if self._call(callback):
                self._ticks[callback] = None

    def _fail(self, error: Exception) -> None:
        # From now on a client's leaving is noticed late, by failing writes.
        callers().submit(
            lambda: logger.error("the ssesync reactor can't wait for its descriptors: %r", error, exc_info=error)
        )
        for callback in self.on_failure:
            self._call(callback)
        time.sleep(TICK)

    @staticmethod
    def _call(callback: Callable[[], Any]) -> Any:
        try:
            return callback()
        except Exception as failed:
            error = failed
            callers().submit(lambda: logger.error("a callback of the reactor failed: %r", callback, exc_info=error))
            return False


_current: dict[None, Reactor] = {}


def reactor() -> Reactor:
    """Get this process's reactor, which the first call starts. A forked child gets its own.

    :raises OSError: there are no more descriptors.
    """
    current = _current.get(None)
    if current is None:
        # No lock, as a signal handler may interrupt this and call it. The first reactor counts.
        made = Reactor()
        current = _current.setdefault(None, made)
        if current is not made:
            made.close()
    current.start()
    return current


def reactor_if_any() -> Reactor | None:
    """Get this process's reactor if there is one. Takes no lock: for signal handlers."""
    return _current.get(None)


def run_foreign(call: Callback) -> None:
    """Call code that is not this library's: at once, but on the reactor's thread submit it to :func:`callers`.

    Not with a lock held.
    """
    current = reactor_if_any()
    if current is not None and current.is_this_thread:
        callers().submit(call)
    else:
        call()


def _after_fork() -> None:
    # The thread is the parent's, and so is the set of descriptors, which must be closed and not changed.
    if (current := _current.pop(None, None)) is not None:
        current.close()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
