"""The loop: one thread per process that has the connections of all detached streams.

A stream of a channel needs no thread of its own. When its headers are out its socket leaves the WSGI server, see
``takeover.py``, and comes here with one small message. Nothing that waits may happen on this thread: what is to be read
or called goes to helpers, and comes back by :meth:`Loop.call_soon`.

The law of this file: a connection belongs to the loop's thread alone, from :meth:`Loop.take_in` to its end. Other
threads only ask, by :meth:`Loop.call_soon`, and are heard in the order in which they did.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import heapq
import itertools
import logging
import os
import random
import socket
import threading
import time
from collections import deque
from collections.abc import Callable

from ..errors import CloseReason
from ..executor import Executor, callers, logged
from ..locks import make_lock
from ..server.cutting import unacknowledged
from ..text import escape
from .broadcast import Group
from .connection import Connection, Handover, Record
from .disconnecting import disconnect
from .poller import Poller, make_poller
from .sending import make_send, make_send_to_all

__all__ = ["Connection", "Group", "Handover", "Loop", "Record", "loop", "loop_if_any"]

logger = logging.getLogger("ssesync")

# Seconds between two looks at silence, lifetimes and clients that don't read.
_TICK = 0.5
# Threads that read logs for clients who come back.
_READERS = 4
# Seconds that the process waits in the end for all clients to have been told.
_GOODBYE = 5.0
# Seconds that a client's system gets to acknowledge what was sent before its connection is reset. It costs nothing.
_UNACKNOWLEDGED = 10.0

Call = Callable[[], object]


class Loop:
    """See the module; use :func:`loop`. ``call_soon``, ``read``, ``tell`` and ``say_goodbye`` are for any thread."""

    def __init__(self, poller: Poller | None = None) -> None:
        self._poller = poller or make_poller()
        #: See :func:`ssesync.detached.sending.make_send`.
        self.send = make_send()
        #: See :func:`ssesync.detached.sending.make_send_to_all`.
        self.send_to_all = make_send_to_all()
        self._calls: deque[Call] = deque()
        self._awake = False  # so that it need not be woken
        self._connections: dict[int, Connection] = {}
        self._waiting: dict[Connection, None] = {}  # for their clients to take more
        self._groups: dict[Group, None] = {}
        self._lifetimes: list[tuple[float, int, Connection]] = []
        self._numbers = itertools.count()
        self._readers = Executor(_READERS, "ssesync-reader")
        self._callers = callers()
        self._resets: list[tuple[float, socket.socket]] = []  # deadlines, and connections to be reset by then
        self._farewell: bytes | None = None
        self._empty = threading.Event()
        self._wake_out, self._wake_in = os.pipe()
        for fd in (self._wake_out, self._wake_in):
            os.set_blocking(fd, False)
        self._poller.add_pipe(self._wake_out)

    def start(self) -> None:
        """Start the thread.

        :raises RuntimeError: there can't be another thread.
        """
        threading.Thread(target=self._run, name="ssesync-loop", daemon=True).start()

    # Any thread.

    def __len__(self) -> int:
        return len(self._connections)

    def call_soon(self, call: Call) -> None:
        """Call on the loop's thread, after all that was asked for before. Takes no lock."""
        self._calls.append(call)
        if not self._awake:
            self._awake = True
            with contextlib.suppress(OSError):  # the pipe is full: it wakes in any case
                os.write(self._wake_in, b"x")

    def read(self, call: Call) -> None:
        """Call on a thread that may wait for a log. What it raises is logged."""
        self._readers.ask(call)

    def tell(self, call: Call) -> None:
        """Call on a thread on which others' code may take its time. What it raises is logged."""
        self._callers.ask(call)

    def say_goodbye(self, last: bytes = b"") -> None:
        """End all streams cleanly, and those that are still to come. Waits for that and ``on_close``, 5 s at most."""
        deadline = time.monotonic() + _GOODBYE
        # A worker's timeout, which is a SystemExit, may have hit a thread between the flag and the pipe.
        self._awake = False
        self.call_soon(lambda: self._say_goodbye(last))
        self._empty.wait(_GOODBYE)
        self._callers.wait(deadline - time.monotonic())

    # The loop's thread.

    def take_in(self, connection: Connection, head: bytes) -> None:
        """Take over a client. What comes first on the wire is its head."""
        self._connections[connection.fd] = connection
        try:
            self._poller.add(connection.fd, _half_close(connection))
        except OSError as error:
            logger.error("a detached stream can't be watched, and ends: %s", escape(error))
            connection.chunked = False  # no last chunk where there was no head
            self.end(connection, CloseReason.ERROR)
            return
        self._groups[connection.group] = None
        lifetime = connection.settings.max_lifetime
        if lifetime is not None:
            # Give or take a tenth, so that streams that began together don't end together.
            dies = time.monotonic() + lifetime * random.uniform(0.9, 1.1)
            heapq.heappush(self._lifetimes, (dies, next(self._numbers), connection))
        connection.put(head)
        if connection.early is not None:
            connection.early()
        if self._farewell is not None:
            self.stop(connection, CloseReason.SHUTDOWN, self._farewell)

    def await_room(self, connection: Connection) -> None:
        """Tell a connection when its client can take more."""
        self._waiting[connection] = None
        self._poller.ask_writable(connection.fd, _half_close(connection), True)

    def forget(self, group: Group) -> None:
        """A group has no more clients."""
        self._groups.pop(group, None)

    def end(self, connection: Connection, reason: CloseReason) -> None:
        """End a stream at once. Does nothing if it has ended."""
        if connection.reason is not None or self._is_early(connection, lambda: self.end(connection, reason)):
            return
        self._waiting.pop(connection, None)
        del self._connections[connection.fd]
        with contextlib.suppress(OSError):
            self._poller.remove(connection.fd)
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

    def _run(self) -> None:
        due = time.monotonic() + _TICK
        while True:
            # In this order: who asks from here on wakes it, and who asked before is heard.
            self._awake = False
            timeout = max(0.0, due - time.monotonic()) if self._connections or self._resets else None
            try:
                ready = list(self._poller.wait(0 if self._calls else timeout))
                self._awake = True
            except Exception:
                self._can_not_wait()
                ready = []  # and who comes all the same is told that it ends
            for fd, gone, writable in ready:
                if fd == self._wake_out:
                    with contextlib.suppress(OSError):
                        os.read(fd, 4096)
                else:
                    logged(functools.partial(self._look, fd, gone, writable))
            # Those that are added meanwhile wait for the next turn, or one busy channel would be all that happens.
            for _ in range(len(self._calls)):
                logged(self._calls.popleft())
            now = time.monotonic()
            if now >= due:
                due = now + _TICK
                logged(lambda: self._tick(time.monotonic()))

    def _can_not_wait(self) -> None:
        with contextlib.suppress(Exception):
            logger.exception("the ssesync loop can't wait: detached streams end")
        for connection in list(self._connections.values()):
            logged(functools.partial(self.end, connection, CloseReason.ERROR))
        time.sleep(_TICK)

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
        self._poller.ask_writable(connection.fd, _half_close(connection), False)
        if connection.ending is None:
            connection.group.caught_up(connection)
        elif connection.finish():
            self.end(connection, connection.ending)

    def _tick(self, now: float) -> None:
        for connection in list(self._waiting):
            if connection.has_stalled(now):
                self.end(connection, CloseReason.STALLED)
        if len(self._lifetimes) > 2 * len(self._connections) + 64:
            self._lifetimes = [each for each in self._lifetimes if not each[2].closed]
            heapq.heapify(self._lifetimes)
        while self._lifetimes and (self._lifetimes[0][0] <= now or self._lifetimes[0][2].closed):
            self.stop(heapq.heappop(self._lifetimes)[2], CloseReason.LIFETIME)
        for group in list(self._groups):
            group.tick(now)
        if self._resets:
            self._reset_due(now)

    def _say_goodbye(self, last: bytes) -> None:
        self._farewell = last
        for connection in list(self._connections.values()):
            self.stop(connection, CloseReason.SHUTDOWN, last)
        self._set_if_empty()

    def let_go(self) -> None:
        """Close all descriptors and end no stream: a forked parent goes on serving them."""
        for fd in (self._wake_in, self._wake_out, *list(self._connections)):
            with contextlib.suppress(OSError):
                os.close(fd)
        for _, handle in self._resets:
            handle.close()
        self._poller.close()


def _half_close(connection: Connection) -> bool:
    settings = connection.settings
    return settings.sense_disconnect and settings.half_close_is_gone


_current: Loop | None = None
_making = make_lock("server.loop")


def loop() -> Loop:
    """This process's loop, started when it is first asked for. A forked child gets its own.

    :raises OSError: there are no more descriptors.
    :raises RuntimeError: there can't be another thread.
    """
    global _current
    with _making:
        if _current is None:
            made = Loop()
            try:
                made.start()
            except BaseException:
                made.let_go()
                raise
            _current = made
            atexit.register(_say_goodbye)
        return _current


def loop_if_any() -> Loop | None:
    """This process's loop if there is one."""
    return _current


def _say_goodbye() -> None:
    atexit.unregister(_say_goodbye)
    if _current is not None:
        _current.say_goodbye()


def _after_fork() -> None:
    global _current, _making
    if _current is not None:
        _current.let_go()
    atexit.unregister(_say_goodbye)
    _current = None
    _making = make_lock("server.loop")


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
