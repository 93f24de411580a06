"""All detached connections of a process: from the hand-over to the end of each.

A detached stream needs no thread of its own. When its head is sent, its socket leaves the WSGI server, see
``handover.py``, and is registered here. Nothing may wait on the reactor's thread: other threads read logs and call
users' code, and return the result by :attr:`Connections.call_soon`.

The law of this file: a connection belongs to the reactor's thread alone, from :meth:`Connections.register` to its end.
Other threads only make requests by ``call_soon``, which the reactor's thread carries out in their order.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import logging
import os
import socket
import threading
import time
from collections.abc import Callable
from typing import cast

from ..errors import CloseReason
from ..executor import Executor, callers, logged
from ..reactor import Reactor, Timer, reactor
from ..server.exit import prepare as prepare_exit
from ..server.incomplete import unacknowledged
from ..server.liveness import lifetime_of
from .connection import Connection
from .group import Group
from .sending import make_send, make_send_to_all
from .state import State

__all__ = ["Connections", "connections", "connections_if_any"]

logger = logging.getLogger("ssesync")

# Threads that read logs for clients that reconnect.
_READERS = 4
# Seconds for which a process that exits waits until all clients have been sent the end.
_DRAIN = 5.0
# Seconds that a client's system has to acknowledge all data before its connection is reset. The wait takes no thread.
_UNACKNOWLEDGED = 10.0

Call = Callable[[], object]


class Connections:
    """See the module; use :func:`connections`. :attr:`call_soon`, :meth:`read`, :meth:`run_in_executor` and
    :meth:`drain` are for any thread, the other methods are for the reactor's."""

    def __init__(self, reactor: Reactor) -> None:
        self._reactor = reactor
        #: Calls on the reactor's thread, after all that was requested before. Takes no lock.
        self.call_soon = reactor.call_soon
        #: See :func:`ssesync.detached.sending.make_send`.
        self.send = make_send()
        #: See :func:`ssesync.detached.sending.make_send_to_all`.
        self.send_to_all = make_send_to_all()
        # From admit() or register() to unwatch(). Only connections are added: the reactor's own dict, as a second one
        # would take some 40 bytes for each.
        self._open = cast(dict[int, Connection], reactor.added)
        self._frozen: dict[Connection, None] = {}
        self._groups: dict[Group, None] = {}
        self._shared: dict[Callable[[Connections], Group], Group] = {}  # see shared_group()
        self._lifetimes: dict[Connection, Timer] = {}
        self._readers = Executor(_READERS, "ssesync-reader")
        self._callers = callers()
        self._resets: list[tuple[float, socket.socket]] = []  # deadlines, and connections to be reset by then
        self._last: bytes | None = None  # the last bytes of all clients, once drain() was called
        self._empty = threading.Event()

    # Any thread.

    def __len__(self) -> int:
        return len(self._open) + len(self._frozen)

    def read(self, read: Callable[[], list[bytes] | None], then: Callable[[list[bytes] | None], object]) -> None:
        """Read a log on a thread that may wait, and pass the result to a function on the reactor's.

        :param read: reads the log. An exception is logged, and the result is empty.
        :param then: the function.
        """

        def call() -> None:
            items: list[bytes] | None = []
            try:
                items = read()
            except Exception:
                logger.exception("a log can't be read for detached streams, which are closed")
            self.call_soon(lambda: then(items))

        self._readers.submit(call)

    def shared_group(self, kind: Callable[[Connections], Group]) -> Group:
        """Get the group of all clients of a kind that have sources of their own.

        :param kind: the group's class.
        :return: the group, which is made for the first client.
        """
        # If two threads each make one at the same time, the first one counts.
        return self._shared.get(kind) or self._shared.setdefault(kind, kind(self))

    def run_in_executor(self, call: Call) -> None:
        """Call users' code, on a thread on which it may wait. An exception is logged."""
        self._callers.submit(call)

    def call_later(self, seconds: float, call: Call) -> Timer:
        """Call on the reactor's thread at the first tick that is so many seconds from now.

        :return: the timer, which can be cancelled.
        """
        return self._reactor.call_later(seconds, call)

    def drain(self, last: bytes = b"") -> None:
        """End all streams cleanly, and those that are registered later. Waits until they have ended and ``on_close``
        has returned, 5 s at most.

        :param last: sent to each client before its trailer.
        """
        deadline = time.monotonic() + _DRAIN
        # Not by call_soon(): the SystemExit of a worker's timeout may have interrupted a thread that woke the reactor.
        self._reactor.call_from_signal(lambda: self._finish_all(last))
        self._empty.wait(_DRAIN)
        self._callers.wait(deadline - time.monotonic())

    def admit(self, connection: Connection, head: bytes, admit: Callable[[bytes], object]) -> None:
        """Send a client its head, and admit it later, as there is no more to send to it now. On the server's thread.

        :param connection: the client's.
        :param head: sent at once.
        :param admit: called on the reactor's thread with the part of the head that is not sent yet. It has to
            :meth:`register` the client.
        """
        sent = max(0, self.send(connection.fd, head, len(head)))
        half_close = _half_close(connection)
        self._reactor.call_to_add(connection.fd, connection, lambda: admit(head[sent:]), half_close=half_close)

    # The reactor's thread.

    def register(self, connection: Connection, head: bytes) -> None:
        """Serve a client from now on.

        :param connection: the client's.
        :param head: sent first.
        """
        try:
            self._reactor.add(connection.fd, connection, half_close=_half_close(connection))
        except OSError as error:
            connection.fail(error)
            return
        self._groups[connection.group] = None
        connection.group.move(connection, State.OPENING)
        self.limit_lifetime(connection, lifetime_of(connection.settings))
        self._reactor.every_tick(self._tick)
        connection.open(head)
        if self._last is not None:
            connection.finish(CloseReason.SHUTDOWN, self._last)

    def limit_lifetime(self, connection: Connection, seconds: float | None) -> None:
        """End a connection after a time, in place of an earlier limit.

        :param seconds: the time; ``None``: never.
        """
        if (timer := self._lifetimes.pop(connection, None)) is not None:
            timer.cancel()
        if seconds is not None and not connection.closed:
            finish = functools.partial(connection.finish, CloseReason.LIFETIME)
            self._lifetimes[connection] = self._reactor.call_later(seconds, finish)

    def freeze(self, connection: Connection) -> float | None:
        """Ignore a connection's socket until :meth:`thaw` or :meth:`released`.

        :return: the rest of its lifetime, in seconds; ``None``: no limit.
        """
        self._frozen[connection] = None
        self._reactor.remove(connection.fd)
        timer = self._lifetimes.get(connection)
        self.limit_lifetime(connection, None)
        return None if timer is None else max(0.0, timer.due - time.monotonic())

    def thaw(self, connection: Connection, lifetime: float | None) -> None:
        """Serve a frozen connection again.

        :param lifetime: the rest of its lifetime.
        :raises OSError: the socket can't be watched.
        """
        self._frozen.pop(connection, None)
        self._reactor.add(connection.fd, connection, half_close=_half_close(connection))
        self.limit_lifetime(connection, lifetime)
        if connection.waits:
            self.watch_writable(connection, True)
        if self._last is not None:
            connection.finish(CloseReason.SHUTDOWN, self._last)

    def released(self, connection: Connection) -> None:
        """A frozen connection is another process's now."""
        self._frozen.pop(connection, None)
        self.note_end()

    def watch_writable(self, connection: Connection, wanted: bool) -> None:
        """Call :meth:`Connection.on_writable` when the socket is writable, or no longer.

        :raises OSError: the socket can't be watched.
        """
        self._reactor.set_writable(connection.fd, wanted, half_close=_half_close(connection))

    def read_upstream(self, fd: int, callback: Call) -> None:
        """Call back while an upstream's descriptor is readable, its end included.

        :raises OSError: the system can't do that for one more.
        """
        self._reactor.read(fd, callback)

    def stop_reading_upstream(self, fd: int) -> None:
        """Undo :meth:`read_upstream`, before the descriptor is closed. Any number of times."""
        self._reactor.stop_reading(fd)

    def unwatch(self, connection: Connection) -> None:
        """Remove a connection from the reactor, before its descriptor is closed."""
        self._frozen.pop(connection, None)
        self._reactor.remove(connection.fd)
        self.limit_lifetime(connection, None)

    def discard(self, group: Group) -> None:
        """Remove a group that has no more clients."""
        self._groups.pop(group, None)

    def abort_all(self) -> None:
        """End all streams, as the reactor can't wait for descriptors."""
        for connection in list(self._open.values()):
            logged(functools.partial(connection.abort, CloseReason.ERROR))

    def reset_later(self, handle: socket.socket) -> None:
        """Close a socket, which resets its connection, when the client's system has acknowledged all data."""
        self._resets.append((time.monotonic() + _UNACKNOWLEDGED, handle))

    def release(self) -> None:
        """Close all descriptors without ending the streams: in a forked child, as its parent still serves them."""
        for fd in (*self._open, *(connection.fd for connection in self._frozen)):
            with contextlib.suppress(OSError):
                os.close(fd)
        for _, handle in self._resets:
            handle.close()

    def _tick(self) -> bool:
        now = time.monotonic()
        for group in list(self._groups):
            logged(functools.partial(group.tick, now))
        if self._resets:
            self._reset_due(now)
        return bool(self._open or self._frozen or self._resets)

    def _finish_all(self, last: bytes) -> None:
        self._last = last  # a frozen one is ended when it is thawed
        for connection in list(self._open.values()):
            logged(functools.partial(connection.finish, CloseReason.SHUTDOWN, last))
        self.note_end()

    def _reset_due(self, now: float) -> None:
        waiting = []
        for deadline, handle in self._resets:
            if now < deadline and unacknowledged(handle.fileno()):
                waiting.append((deadline, handle))
            else:
                handle.close()
        self._resets = waiting
        self.note_end()

    def note_end(self) -> None:
        """A connection is closed: end :meth:`drain` if it was the last."""
        if self._last is not None and not (self._open or self._frozen or self._resets):
            self._empty.set()


def _half_close(connection: Connection) -> bool:
    """Whether a client that only stops sending counts as gone."""
    settings = connection.settings
    return settings.sense_disconnect and settings.half_close_is_gone


_current: dict[None, Connections] = {}


def connections() -> Connections:
    """Get this process's detached connections. A forked child has its own.

    :raises OSError: there are no more descriptors.
    :raises RuntimeError: no more threads can be started.
    """
    running = reactor()
    running.require_thread()
    if None not in _current:
        # No lock: the first one counts. Another one holds no resources.
        made = Connections(running)
        if _current.setdefault(None, made) is made:
            running.on_failure.append(made.abort_all)
            prepare_exit()
            atexit.register(_drain)
    return _current[None]


def connections_if_any() -> Connections | None:
    """Get this process's detached connections; ``None`` if no stream was detached."""
    return _current.get(None)


def _drain() -> None:
    atexit.unregister(_drain)
    if (current := connections_if_any()) is not None:
        current.drain()


def _after_fork() -> None:
    if (current := _current.pop(None, None)) is not None:
        current.release()
    atexit.unregister(_drain)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
