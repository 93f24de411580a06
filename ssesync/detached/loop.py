"""The loop: what serves the connections of all detached streams of a process, on the reactor's thread.

A stream of a channel needs no thread of its own. When its headers are out its socket leaves the WSGI server, see
``handover.py``, and comes here with one small message. Nothing that waits may happen on this thread: what is to be read
or called goes to helpers, and comes back by :meth:`Loop.call_soon`.

The law of this file: a connection belongs to the reactor's thread alone, from :meth:`Loop.take_in` to its end. Other
threads only ask, by :meth:`Loop.call_soon`, and are heard in the order in which they did.
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

from ..errors import CloseReason
from ..executor import Executor, callers, logged
from ..reactor import Reactor, Timer, reactor
from ..server.cutting import unacknowledged
from ..server.liveness import lifetime_of
from ..text import escape
from .broadcast import Group
from .connection import Connection, Handover, Record
from .disconnecting import disconnect
from .sending import make_send, make_send_to_all

__all__ = ["Connection", "Group", "Handover", "Loop", "Record", "loop", "loop_if_any"]

logger = logging.getLogger("ssesync")

# Threads that read logs for clients who come back.
_READERS = 4
# Seconds that the process waits in the end for all clients to have been told.
_GOODBYE = 5.0
# Seconds that a client's system gets to acknowledge what was sent before its connection is reset. It costs nothing.
_UNACKNOWLEDGED = 10.0

Call = Callable[[], object]


class Loop:
    """See the module; use :func:`loop`. ``call_soon``, ``read``, ``tell`` and ``say_goodbye`` are for any thread."""

    def __init__(self, reactor: Reactor) -> None:
        self._reactor = reactor
        #: Call on the reactor's thread, after all that was asked for before. Takes no lock.
        self.call_soon = reactor.call_soon
        #: See :func:`ssesync.detached.sending.make_send`.
        self.send = make_send()
        #: See :func:`ssesync.detached.sending.make_send_to_all`.
        self.send_to_all = make_send_to_all()
        self._connections: dict[int, Connection] = {}
        self._waiting: dict[Connection, None] = {}  # for their clients to take more
        self._groups: dict[Group, None] = {}
        self._lifetimes: dict[Connection, Timer] = {}
        self._readers = Executor(_READERS, "ssesync-reader")
        self._callers = callers()
        self._resets: list[tuple[float, socket.socket]] = []  # deadlines, and connections to be reset by then
        self._farewell: bytes | None = None
        self._empty = threading.Event()

    # Any thread.

    def __len__(self) -> int:
        return len(self._connections)

    def read(self, call: Call) -> None:
        """Call on a thread that may wait for a log. What it raises is logged."""
        self._readers.ask(call)

    def tell(self, call: Call) -> None:
        """Call on a thread on which others' code may take its time. What it raises is logged."""
        self._callers.ask(call)

    def say_goodbye(self, last: bytes = b"") -> None:
        """End all streams cleanly, and those that are still to come. Waits for that and ``on_close``, 5 s at most."""
        deadline = time.monotonic() + _GOODBYE
        # A worker's timeout, which is a SystemExit, may have hit a thread that was waking the reactor.
        self._reactor.call_from_signal(lambda: self._say_goodbye(last))
        self._empty.wait(_GOODBYE)
        self._callers.wait(deadline - time.monotonic())

    # The loop's thread.

    def take_in(self, connection: Connection, head: bytes) -> None:
        """Take over a client. What comes first on the wire is its head."""
        self._connections[connection.fd] = connection
        try:
            self._reactor.add(connection.fd, self._look, half_close=_half_close(connection))
        except OSError as error:
            logger.error("a detached stream can't be watched, and ends: %s", escape(error))
            connection.chunked = False  # no last chunk where there was no head
            self.end(connection, CloseReason.ERROR)
            return
        self._groups[connection.group] = None
        if (seconds := lifetime_of(connection.settings)) is not None:
            stop = functools.partial(self.stop, connection, CloseReason.LIFETIME)
            self._lifetimes[connection] = self._reactor.call_later(seconds, stop)
        self._reactor.every_tick(self._tick)
        connection.put(head)
        if connection.early is not None:
            connection.early()
        if self._farewell is not None:
            self.stop(connection, CloseReason.SHUTDOWN, self._farewell)

    def await_room(self, connection: Connection) -> None:
        """Tell a connection when its client can take more."""
        self._waiting[connection] = None
        self._reactor.set_writable(connection.fd, True, half_close=_half_close(connection))

    def forget(self, group: Group) -> None:
        """A group has no more clients."""
        self._groups.pop(group, None)

    def end(self, connection: Connection, reason: CloseReason) -> None:
        """End a stream at once. Does nothing if it has ended."""
        if connection.reason is not None or self._is_early(connection, lambda: self.end(connection, reason)):
            return
        self._waiting.pop(connection, None)
        del self._connections[connection.fd]
        self._reactor.remove(connection.fd)
        if (timer := self._lifetimes.pop(connection, None)) is not None:
            timer.cancel()
        connection.group.step_out(connection)
        # Whatever happens there, nothing is sent to the descriptor any more.
        logged(lambda: self._hang_up(connection, reason))
        connection.reason = reason
        connection.group.left(connection)
        logged(lambda: connection.record.ended(connection, reason, connection.stats))
        self._set_if_empty()

    def stop(self, connection: Connection, reason: CloseReason, last: bytes = b"") -> None:
        """End a stream when all that waits was sent, ``last``, and its last words. Does nothing if it ends already."""
        if connection.reason is not None or connection.ending is not None:
            return
        if self._is_early(connection, lambda: self.stop(connection, reason, last)):
            return
        if connection.orderly or not callable(connection.settings.error_event):
            self._stop(connection, reason, last + connection.last_words(reason))
            return

        def make() -> None:  # on a thread on which others' code may take its time
            words = connection.last_words(reason)
            self.call_soon(lambda: self._stop(connection, reason, last + words))

        self.tell(make)

    def _stop(self, connection: Connection, reason: CloseReason, last: bytes) -> None:
        if connection.reason is not None or connection.ending is not None:
            return
        connection.ending = reason
        rest, events = connection.group.last_for(connection)
        connection.group.step_out(connection)
        waits = connection.waits
        if rest and not waits:
            waits = not connection.give(rest, events)
            if connection.closed:
                return
        elif rest:
            last = rest + last
        if connection.bid_farewell(last):
            self.end(connection, reason)

    def _hang_up(self, connection: Connection, reason: CloseReason) -> None:
        left = disconnect(connection, reason)
        if left is not None:
            self._resets.append((time.monotonic() + _UNACKNOWLEDGED, left))

    def _reset_due(self, now: float) -> None:
        """Reset connections whose clients have what was sent, or have had the time for it."""
        waiting = []
        for deadline, handle in self._resets:
            if now < deadline and unacknowledged(handle.fileno()):
                waiting.append((deadline, handle))
            else:
                handle.close()
        self._resets = waiting
        self._set_if_empty()

    def _set_if_empty(self) -> None:
        if self._farewell is not None and not self._connections and not self._resets:
            self._empty.set()

    def _is_early(self, connection: Connection, call: Call) -> bool:
        """Whether a connection is still to be taken in. Then this is to be done, if nothing was before it."""
        if self._connections.get(connection.fd) is connection:
            return False
        connection.early = connection.early or call
        return True

    def when_reactor_fails(self) -> None:
        """End all streams: nothing can be waited for."""
        for connection in list(self._connections.values()):
            logged(functools.partial(self.end, connection, CloseReason.ERROR))

    def _look(self, fd: int, gone: bool, writable: bool) -> None:
        connection = self._connections.get(fd)
        if connection is None:
            return  # it has ended in this turn
        if gone:
            self.end(connection, CloseReason.CLIENT_GONE)
        elif writable and connection in self._waiting:
            if connection.go_on():
                self._has_taken_all(connection)
            elif not connection.closed:
                connection.group.made_progress(connection)

    def _has_taken_all(self, connection: Connection) -> None:
        self._waiting.pop(connection, None)
        self._reactor.set_writable(connection.fd, False, half_close=_half_close(connection))
        if connection.ending is None:
            connection.group.caught_up(connection)
        elif connection.finish():
            self.end(connection, connection.ending)

    def _tick(self) -> bool:
        now = time.monotonic()
        for connection in list(self._waiting):
            if connection.has_stalled(now):
                self.end(connection, CloseReason.STALLED)
        for group in list(self._groups):
            group.tick(now)
        if self._resets:
            self._reset_due(now)
        return bool(self._connections or self._resets)

    def _say_goodbye(self, last: bytes) -> None:
        self._farewell = last
        for connection in list(self._connections.values()):
            self.stop(connection, CloseReason.SHUTDOWN, last)
        self._set_if_empty()

    def let_go(self) -> None:
        """Close all descriptors and end no stream: a forked parent goes on serving them."""
        for fd in list(self._connections):
            with contextlib.suppress(OSError):
                os.close(fd)
        for _, handle in self._resets:
            handle.close()


def _half_close(connection: Connection) -> bool:
    settings = connection.settings
    return settings.sense_disconnect and settings.half_close_is_gone


_current: dict[None, Loop] = {}


def loop() -> Loop:
    """This process's loop. A forked child gets its own.

    :raises OSError: there are no more descriptors.
    :raises RuntimeError: there can't be another thread.
    """
    running = reactor()
    running.require_thread()
    if None not in _current:
        # No lock: the first one counts. What another one was made of is nothing that must be closed.
        made = Loop(running)
        if _current.setdefault(None, made) is made:
            running.on_failure.append(made.when_reactor_fails)
            atexit.register(_say_goodbye)
    return _current[None]


def loop_if_any() -> Loop | None:
    """This process's loop if there is one."""
    return _current.get(None)


def _say_goodbye() -> None:
    atexit.unregister(_say_goodbye)
    if (current := loop_if_any()) is not None:
        current.say_goodbye()


def _after_fork() -> None:
    if (current := _current.pop(None, None)) is not None:
        current.let_go()
    atexit.unregister(_say_goodbye)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
