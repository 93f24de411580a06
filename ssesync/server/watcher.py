"""The watcher: one thread per process that notices hang-ups, keeps time, and calls back.

A client that leaves is seen without a write, by the kernel's own word (``EPOLLRDHUP``): looking with ``MSG_PEEK``
instead is blind behind one pipelined byte. Every registration is one-shot, and a callback only ever sets things in
motion (it closes a mailbox, cuts a socket): so one thread is enough for any number of streams. Users' code may wait,
so it is called on other threads, see :func:`run_foreign`.

Under gevent a greenlet waits on the epoll set's own descriptor. gevent's patched ``poll`` never reports RDHUP, and a
native ``epoll.poll`` that waits would block the hub with all that runs on it.
"""

from __future__ import annotations

import logging
import os
import select
import sys
import threading
import time
from collections.abc import Callable
from typing import Any, Protocol

from ..executor import callers
from ..locks import Once, make_rlock
from ..text import escape

__all__ = ["TICK", "Watcher", "run_foreign", "watcher", "watcher_if_any"]

logger = logging.getLogger("ssesync")

#: Seconds between two looks at lifetimes and stalled sends. Both are counted in tens of seconds.
TICK = 0.5

Callback = Callable[[], object]

# EPOLLRDHUP, which gevent's patch takes from the select module.
_RDHUP = 0x2000


class Poller(Protocol):
    """One-shot readiness: of hang-ups on clients' descriptors, of anything on the wake-up pipe."""

    def watch(self, fd: int, half_close: bool) -> None:
        """Report once when the peer of ``fd`` closes; with ``half_close`` also when it only stops sending."""

    def watch_pipe(self, fd: int) -> None:
        """Report whenever ``fd`` is readable."""

    def forget(self, fd: int) -> None:
        """Report nothing more of ``fd``."""

    def wait(self, timeout: float | None) -> list[int]:
        """Wait up to ``timeout`` seconds; the descriptors there is something of."""

    def is_hung_up(self, fd: int, half_close: bool) -> bool:
        """Whether what :meth:`watch` reports is so now."""


class EpollPoller:
    """Linux. Under gevent the native class, as the patch takes ``select.epoll`` away."""

    def __init__(self) -> None:
        self._epoll = _native("epoll")()
        self._wait_read = _gevent_wait()

    def watch(self, fd: int, half_close: bool) -> None:
        self._epoll.register(fd, (_RDHUP if half_close else 0) | 1 << 30)  # EPOLLONESHOT

    def watch_pipe(self, fd: int) -> None:
        self._epoll.register(fd, 1)  # EPOLLIN

    def forget(self, fd: int) -> None:
        self._epoll.unregister(fd)

    def wait(self, timeout: float | None) -> list[int]:
        if self._wait_read is not None:
            self._wait_read(self._epoll.fileno(), timeout)
            timeout = 0
        return [fd for fd, _ in self._epoll.poll(timeout)]

    def is_hung_up(self, fd: int, half_close: bool) -> bool:
        poll = _native("poll")()
        poll.register(fd, _RDHUP if half_close else 0)  # POLLRDHUP is the same bit
        return bool(poll.poll(0))


class KqueuePoller:
    """macOS and the BSDs. Half-close and close look the same there: both are EV_EOF."""

    def __init__(self) -> None:
        kqueue: Any = select
        self._module = kqueue
        self._kqueue = kqueue.kqueue()
        self._pipe = -1

    def watch(self, fd: int, half_close: bool) -> None:
        # EV_CLEAR: pipelined bytes are reported once and are not what is waited for.
        if half_close:
            self._change(fd, self._module.KQ_EV_ADD | self._module.KQ_EV_CLEAR)

    def watch_pipe(self, fd: int) -> None:
        self._pipe = fd
        self._change(fd, self._module.KQ_EV_ADD)

    def forget(self, fd: int) -> None:
        self._change(fd, self._module.KQ_EV_DELETE)

    def wait(self, timeout: float | None) -> list[int]:
        events = self._kqueue.control(None, 256, timeout)
        eof = self._module.KQ_EV_EOF
        return [event.ident for event in events if event.ident == self._pipe or event.flags & eof]

    def is_hung_up(self, fd: int, half_close: bool) -> bool:
        return True

    def _change(self, fd: int, flags: int) -> None:
        self._kqueue.control([self._module.kevent(fd, self._module.KQ_FILTER_READ, flags)], 0, 0)


class Watcher:
    """See the module. Use :func:`watcher`; every method may be called from any thread."""

    def __init__(self) -> None:
        self._poller: Poller | None = _make_poller()
        # A signal handler may end a stream, and so come here, on a thread that is in here.
        self._lock = make_rlock("server.watcher")
        self._hang_ups: dict[int, tuple[Callback, bool]] = {}
        self._ticks: list[Callable[[], bool]] = []
        self._signalled: list[Callback] = []
        self._starting = Once()
        self._started = False
        self._told = Once()
        self._ident = 0
        self._wake_out, self._wake_in = os.pipe()
        os.set_blocking(self._wake_in, False)
        os.set_blocking(self._wake_out, False)
        if self._poller is not None:
            self._poller.watch_pipe(self._wake_out)

    def start(self) -> None:
        """Start the thread, which also does what was asked for before. Any number of times: where there can be no other
        thread now, there may be one later."""
        # Nobody waits here: a lock could be one from before gevent's patch, as gunicorn's hooks are imported before it.
        # While a thread starts others run, and a greenlet that waited for such a lock would stop all.
        if self._started or not self._starting():
            return
        try:
            threading.Thread(target=self._run, name="ssesync-watcher", daemon=True).start()
            self._started = True
        except RuntimeError as error:
            if self._told():
                logger.warning(
                    "clients that leave are not noticed until there is a thread for the watcher: %s", escape(error)
                )
        finally:
            if not self._started:
                self._starting = Once()

    @property
    def senses(self) -> bool:
        """Whether hang-ups can be seen on this system."""
        return self._poller is not None

    def watch(self, fd: int, callback: Callback, *, half_close: bool = True) -> bool:
        """Call back once when the peer of ``fd`` has closed; whether that can be seen."""
        if self._poller is None:
            return False
        with self._lock:
            self._hang_ups[fd] = callback, half_close
            try:
                self._poller.watch(fd, half_close)
            except FileExistsError:
                # An earlier stream on this descriptor was never closed; its callback is replaced by now.
                self._poller.forget(fd)
                self._poller.watch(fd, half_close)
            except OSError:
                del self._hang_ups[fd]
                return False
        return True

    def forget(self, fd: int, callback: Callback) -> None:
        """Take :meth:`watch` back, before the descriptor is closed. Not an error if it has called back."""
        with self._lock:
            if self._hang_ups.get(fd, (None,))[0] != callback:
                return
            del self._hang_ups[fd]
            try:
                if self._poller is not None:
                    self._poller.forget(fd)
            except OSError:
                pass  # closed already

    def every_tick(self, callback: Callable[[], bool]) -> None:
        """Call back every ``TICK`` seconds for as long as it answers True. A callback is kept once."""
        with self._lock:
            if callback in self._ticks:
                return
            self._ticks.append(callback)
            first = len(self._ticks) == 1
        if first:
            self._wake()

    def from_signal(self, callback: Callback) -> None:
        """Call back as soon as may be, on the watcher's thread. Takes no lock: for signal handlers."""
        self._signalled.append(callback)
        self._wake()

    @property
    def is_this_thread(self) -> bool:
        """Whether this is called on the watcher's thread."""
        return threading.get_ident() == self._ident

    def close(self) -> None:
        """Leave its descriptors behind: a forked parent's, whose thread did not come along, or of one not started."""
        for fd in (self._wake_in, self._wake_out):
            os.close(fd)

    def _wake(self) -> None:
        try:
            os.write(self._wake_in, b"x")
        except OSError:
            pass  # the pipe is full: it wakes in any case

    def _run(self) -> None:
        self._ident = threading.get_ident()
        next_tick = 0.0
        while True:
            now = time.monotonic()
            if not self._ticks:
                timeout = None
                next_tick = 0.0
            else:
                next_tick = next_tick or now + TICK
                timeout = max(0.0, next_tick - now)
            try:
                ready = self._wait(timeout)
            except OSError:
                logger.exception("the ssesync watcher can't wait: from now on clients that leave are noticed late")
                return
            for fd in ready:
                if fd == self._wake_out:
                    self._empty_pipe()
                else:
                    self._hung_up(fd)
            while self._signalled:
                self._call(self._signalled.pop(0))
            if next_tick and time.monotonic() >= next_tick:
                next_tick = 0.0
                self._tick()

    def _wait(self, timeout: float | None) -> list[int]:
        if self._poller is not None:
            return self._poller.wait(timeout)
        ready, _, _ = select.select([self._wake_out], [], [], timeout)
        return ready

    def _hung_up(self, fd: int) -> None:
        with self._lock:
            callback, half_close = self._hang_ups.get(fd, (None, True))
            # Since the report, the descriptor may have been forgotten, closed, and given to the next connection. Under
            # the lock it can't be.
            if callback is None or self._poller is None or not self._poller.is_hung_up(fd, half_close):
                return
        self._call(callback)

    def _tick(self) -> None:
        # Taken out first: a callback that is added again while it answers False must not get lost.
        with self._lock:
            callbacks, self._ticks = self._ticks, []
        for callback in callbacks:
            if self._call(callback):
                self.every_tick(callback)

    def _empty_pipe(self) -> None:
        try:
            os.read(self._wake_out, 4096)
        except BlockingIOError:
            pass

    @staticmethod
    def _call(callback: Callable[[], Any]) -> Any:
        try:
            return callback()
        except Exception as failed:
            error = failed
            run_foreign(lambda: logger.error("a callback of the ssesync watcher failed: %r", callback, exc_info=error))
            return False


_current: dict[None, Watcher] = {}


def watcher() -> Watcher:
    """This process's watcher, started when it is first asked for. A forked child gets its own.

    :raises OSError: there are no more descriptors.
    """
    current = _current.get(None)
    if current is None:
        # No lock: a signal handler may come here while its thread is here. The first one counts.
        made = Watcher()
        current = _current.setdefault(None, made)
        if current is not made:
            made.close()
    current.start()
    return current


def watcher_if_any() -> Watcher | None:
    """This process's watcher if there is one. Takes no lock: for signal handlers."""
    return _current.get(None)


def run_foreign(call: Callback) -> None:
    """Call code that is not this library's: here, or on a helper thread where this is the watcher's own.

    Not with a lock held.
    """
    current = watcher_if_any()
    if current is not None and current.is_this_thread:
        callers().ask(call)
    else:
        call()


def _after_fork() -> None:
    # The thread is the parent's, and so are the sets of descriptors: they must not be shared, only left behind.
    if (current := _current.pop(None, None)) is not None:
        current.close()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def _make_poller() -> Poller | None:
    if _native("epoll") is not None:
        return EpollPoller()
    if hasattr(select, "kqueue") and _gevent_wait() is None:
        return KqueuePoller()
    return None


def _native(name: str) -> Any:
    """A name of the select module, from before gevent patched it."""
    if "gevent.monkey" in sys.modules:
        from gevent import monkey

        try:
            return monkey.get_original("select", name)
        except AttributeError:
            return None
    return getattr(select, name, None)


def _gevent_wait() -> Callable[[int, float | None], None] | None:
    """How a greenlet waits for a descriptor, where threads are greenlets."""
    if "gevent.monkey" not in sys.modules:
        return None
    from gevent import monkey, socket

    if not monkey.is_module_patched("threading"):
        return None

    def wait(fd: int, timeout: float | None) -> None:
        try:
            socket.wait_read(fd, timeout=timeout)
        except TimeoutError:
            pass

    return wait
