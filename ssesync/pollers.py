"""Pollers: the reactor waits for descriptors with epoll, kqueue, or the standard library's ``selectors``.

A poller has three kinds of descriptors. *Added* ones belong to the reactor's thread, which writes to them: they are
reported while their peer is gone, or they are writable. *Read* ones belong to the reactor's thread too, and are
reported while they are readable, an end or an error included. *Watched* ones belong to a WSGI server, which reads from
them: only the end of the connection is reported, once, and nothing is read.
"""

from __future__ import annotations

import os
import select
import selectors
from collections.abc import Iterable
from typing import Any, NamedTuple, Protocol

from .greenlets import native_select, wait_readable

__all__ = ["Poller", "Ready", "make_poller"]

# epoll's events. gevent's patch takes their names from the select module.
_IN, _OUT, _ERR, _HUP, _RDHUP, _ONESHOT = 0x1, 0x4, 0x8, 0x10, 0x2000, 1 << 30
_GONE = _RDHUP | _HUP | _ERR
# Bytes that are read at a time, and dropped, on systems where only a read shows that a client has left.
_PIECE = 65536


class Ready(NamedTuple):
    """A report of a descriptor."""

    fd: int
    gone: bool
    """The peer has closed the connection, or its sending half if that counts."""
    writable: bool
    """The descriptor is writable; one that is read: it is readable."""


class Poller(Protocol):
    """``half_close``: whether a peer that only stops sending counts as gone."""

    adds_on_any_thread: bool
    """Whether :meth:`add` may be called on any thread, while another one waits."""

    def add(self, fd: int, half_close: bool) -> None:
        """Report when the peer of a descriptor of the reactor's is gone."""

    def read(self, fd: int) -> None:
        """Report when a descriptor is readable."""

    def set_writable(self, fd: int, half_close: bool, wanted: bool) -> None:
        """Report also, or no longer, when an added descriptor is writable."""

    def watch(self, fd: int, half_close: bool) -> None:
        """Report once when the peer of a server's descriptor is gone.

        :raises OSError: the system can't report that.
        """

    def is_hung_up(self, fd: int, half_close: bool) -> bool:
        """Check whether the peer of a watched descriptor is gone now."""
        ...

    def remove(self, fd: int) -> None:
        """End the reports of a descriptor of any kind.

        :raises OSError: it is closed, or not known.
        """

    def wait(self, timeout: float | None) -> Iterable[Ready]:
        """Wait up to ``timeout`` seconds, without end for ``None``."""
        ...

    def close(self) -> None:
        """Release the set of descriptors, not the descriptors."""


class EpollPoller:
    """Linux. The kernel reports the end of a connection without a read or a write (``EPOLLRDHUP``). ``MSG_PEEK`` would
    not show it behind one pipelined byte.

    Under gevent a greenlet waits on the epoll set's own descriptor. gevent's patched ``poll`` never reports RDHUP, and
    a native ``epoll.poll`` that waits would block the hub with all that runs on it.
    """

    adds_on_any_thread = True

    def __init__(self) -> None:
        self._epoll = native_select("epoll")()
        self._wait_readable = wait_readable()

    def add(self, fd: int, half_close: bool) -> None:
        self._epoll.register(fd, _RDHUP if half_close else 0)

    def read(self, fd: int) -> None:
        self._epoll.register(fd, _IN)

    def set_writable(self, fd: int, half_close: bool, wanted: bool) -> None:
        self._epoll.modify(fd, (_RDHUP if half_close else 0) | (_OUT if wanted else 0))

    def watch(self, fd: int, half_close: bool) -> None:
        self._epoll.register(fd, (_RDHUP if half_close else 0) | _ONESHOT)

    def is_hung_up(self, fd: int, half_close: bool) -> bool:
        poll = native_select("poll")()
        poll.register(fd, _RDHUP if half_close else 0)  # POLLRDHUP is the same bit
        return bool(poll.poll(0))

    def remove(self, fd: int) -> None:
        self._epoll.unregister(fd)

    def wait(self, timeout: float | None) -> Iterable[Ready]:
        if self._wait_readable is not None:
            self._wait_readable(self._epoll.fileno(), timeout)
            timeout = 0
        for fd, mask in self._epoll.poll(timeout):
            yield Ready(fd, bool(mask & _GONE), bool(mask & (_OUT | _IN)))

    def close(self) -> None:
        self._epoll.close()


class KqueuePoller:
    """macOS and the BSDs. Bytes that a client sends are reported once (``EV_CLEAR``) and not read."""

    adds_on_any_thread = True

    def __init__(self) -> None:
        self._select: Any = select
        self._kqueue = self._select.kqueue()
        self._read: set[int] = set()

    def add(self, fd: int, half_close: bool) -> None:
        flags = self._select.KQ_EV_ADD | self._select.KQ_EV_CLEAR
        self._change(fd, self._select.KQ_FILTER_READ, flags, half_close)

    watch = add

    def read(self, fd: int) -> None:
        self._change(fd, self._select.KQ_FILTER_READ, self._select.KQ_EV_ADD)
        self._read.add(fd)

    def set_writable(self, fd: int, half_close: bool, wanted: bool) -> None:
        flags = self._select.KQ_EV_ADD if wanted else self._select.KQ_EV_DELETE
        self._change(fd, self._select.KQ_FILTER_WRITE, flags)

    def is_hung_up(self, fd: int, half_close: bool) -> bool:
        return True  # a descriptor that is closed leaves the set

    def remove(self, fd: int) -> None:
        self._read.discard(fd)
        try:
            self._change(fd, self._select.KQ_FILTER_WRITE, self._select.KQ_EV_DELETE)
        except OSError:
            pass  # the filter for writing was not set
        self._change(fd, self._select.KQ_FILTER_READ, self._select.KQ_EV_DELETE)

    def wait(self, timeout: float | None) -> Iterable[Ready]:
        for event in self._kqueue.control(None, 256, timeout):
            # A peer that only stops sending causes an end of file without an error.
            reading = event.filter == self._select.KQ_FILTER_READ
            ended = bool(event.flags & self._select.KQ_EV_EOF)
            gone = ended and (not reading or bool(event.udata) or bool(event.fflags))
            if event.ident in self._read:
                yield Ready(event.ident, False, True)
            elif gone or not reading:
                yield Ready(event.ident, gone, not reading)

    def close(self) -> None:
        self._kqueue.close()

    def _change(self, fd: int, which: int, flags: int, half_close: bool = True) -> None:
        self._kqueue.control([self._select.kevent(fd, which, flags, 0, 0, int(half_close))], 0, 0)


class SelectorPoller:
    """Other systems. Only a read shows that a client has ended its connection. So a server's descriptors can't be
    watched, and bytes that a client sends to a descriptor of the reactor are dropped."""

    adds_on_any_thread = False

    def __init__(self, selector: selectors.BaseSelector | None = None) -> None:
        self._selector = selector or selectors.DefaultSelector()

    def add(self, fd: int, half_close: bool) -> None:
        self._selector.register(fd, selectors.EVENT_READ, half_close)

    def read(self, fd: int) -> None:
        self._selector.register(fd, selectors.EVENT_READ)

    def set_writable(self, fd: int, half_close: bool, wanted: bool) -> None:
        events = selectors.EVENT_READ | (selectors.EVENT_WRITE if wanted else 0)
        if fd in self._selector.get_map():
            self._selector.modify(fd, events, half_close)
        elif wanted:
            # The client has only stopped sending. That does not count here, and must not be reported again.
            self._selector.register(fd, selectors.EVENT_WRITE, half_close)

    def watch(self, fd: int, half_close: bool) -> None:
        raise OSError("this system reports the end of a connection only to a read")

    def is_hung_up(self, fd: int, half_close: bool) -> bool:
        return False

    def remove(self, fd: int) -> None:
        if fd in self._selector.get_map():
            self._selector.unregister(fd)

    def wait(self, timeout: float | None) -> Iterable[Ready]:
        for key, events in self._selector.select(timeout):
            writable = bool(events & selectors.EVENT_WRITE)
            if key.data is None:
                yield Ready(key.fd, False, True)
            elif events & selectors.EVENT_READ and self._has_ended(key):
                yield Ready(key.fd, True, writable)
            elif writable:
                yield Ready(key.fd, False, True)

    def close(self) -> None:
        self._selector.close()

    def _has_ended(self, key: Any) -> bool:
        try:
            data = os.read(key.fd, _PIECE)
        except BlockingIOError:
            return False
        except OSError:
            return True
        if data:
            return False
        if not key.data:
            wanted = bool(key.events & selectors.EVENT_WRITE)
            self._selector.unregister(key.fd)
            self.set_writable(key.fd, False, wanted)
        return bool(key.data)


def make_poller() -> Poller:
    """Make the best poller that this system has.

    :return: the poller: a :class:`SelectorPoller` if threads are greenlets that can't wait for a descriptor.
    :raises OSError: there are no more descriptors.
    """
    if native_select("epoll") is not None:
        return EpollPoller()
    if hasattr(select, "kqueue") and wait_readable() is None:
        return KqueuePoller()
    return SelectorPoller()
