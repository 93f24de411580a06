"""What the loop waits on: which clients have left, which can take more."""

from __future__ import annotations

import os
import select
import selectors
from collections.abc import Iterable
from typing import Any, NamedTuple, Protocol

__all__ = ["Poller", "make_poller"]

# A client has nothing to say. What it says all the same is thrown away in such pieces.
_PIECE = 65536


class Ready(NamedTuple):
    """What there is of a descriptor."""

    fd: int
    gone: bool
    writable: bool


class Poller(Protocol):
    """The descriptors of clients, and a pipe's that wakes."""

    def add(self, fd: int, half_close: bool) -> None:
        """Report when the client is gone; with ``half_close`` also when it only stops sending."""

    def add_pipe(self, fd: int) -> None:
        """Report whenever the pipe is readable, as writable."""

    def ask_writable(self, fd: int, half_close: bool, wanted: bool) -> None:
        """Report also, or no more, when the client can take more."""

    def remove(self, fd: int) -> None:
        """Report nothing more of it."""

    def wait(self, timeout: float | None) -> Iterable[Ready]:
        """Wait up to ``timeout`` seconds."""

    def close(self) -> None:
        """Let go of it all."""


class EpollPoller:
    """Linux. That a client sends is not even looked at."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._pipe = -1

    def add(self, fd: int, half_close: bool) -> None:
        self._epoll.register(fd, select.EPOLLRDHUP if half_close else 0)

    def add_pipe(self, fd: int) -> None:
        self._pipe = fd
        self._epoll.register(fd, select.EPOLLIN)

    def ask_writable(self, fd: int, half_close: bool, wanted: bool) -> None:
        self._epoll.modify(fd, (select.EPOLLRDHUP if half_close else 0) | (select.EPOLLOUT if wanted else 0))

    def remove(self, fd: int) -> None:
        self._epoll.unregister(fd)

    def wait(self, timeout: float | None) -> Iterable[Ready]:
        gone = select.EPOLLRDHUP | select.EPOLLHUP | select.EPOLLERR
        for fd, mask in self._epoll.poll(timeout):
            yield Ready(fd, bool(mask & gone) and fd != self._pipe, bool(mask & (select.EPOLLOUT | select.EPOLLIN)))

    def close(self) -> None:
        self._epoll.close()


class SelectorPoller:
    """Everywhere else: what the standard library selects with. An end of what a client sends shows as readable."""

    def __init__(self, selector: selectors.BaseSelector | None = None) -> None:
        self._selector = selector or selectors.DefaultSelector()

    def add(self, fd: int, half_close: bool) -> None:
        self._selector.register(fd, selectors.EVENT_READ, half_close)

    def add_pipe(self, fd: int) -> None:
        self._selector.register(fd, selectors.EVENT_READ)

    def ask_writable(self, fd: int, half_close: bool, wanted: bool) -> None:
        events = selectors.EVENT_READ | (selectors.EVENT_WRITE if wanted else 0)
        if fd in self._selector.get_map():
            self._selector.modify(fd, events, half_close)
        elif wanted:
            # It has ended its sending, which does not count, and must not be reported for ever.
            self._selector.register(fd, selectors.EVENT_WRITE, half_close)

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
            self.ask_writable(key.fd, False, wanted)
        return bool(key.data)

    def close(self) -> None:
        self._selector.close()


def make_poller() -> Poller:
    """The best that this system has."""
    return EpollPoller() if hasattr(select, "epoll") else SelectorPoller()
