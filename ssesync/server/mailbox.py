"""Mailbox: what waits between a producer and the thread that serves its client. Bounded and closable.

What waits is behind a lock that is held for some steps and never while a thread waits. Its end is not: a signal
handler may close the mailbox on a thread that holds the lock. So the reason is set by one operation that nothing
interrupts, and the threads that wait are woken after it. Both ways of waiting, a producer's for room and the server's
for something to send, look for the reason each time.
"""

from __future__ import annotations

import time

from ..errors import CloseReason, StreamClosed
from ..locks import Waiters, is_owned, make_rlock

__all__ = ["Mailbox"]


class Mailbox:
    """A bounded queue of encoded writes. Every method may be called from any thread, :meth:`close` also from a signal
    handler.

    :param max_items: writes that may wait.
    :param max_bytes: bytes that may wait. A write larger than that is taken when nothing else waits.
    """

    def __init__(self, max_items: int = 256, max_bytes: int = 1024 * 1024) -> None:
        self._max_items = max_items
        self._max_bytes = max_bytes
        self._lock = make_rlock("server.mailbox")  # re-entrant, for who asks what is pending in a signal handler
        self._room = Waiters()
        self._writes = Waiters()
        self._items: list[bytes] = []
        self._size = 0
        # Each is one that closes with its last write; the first one counts.
        self._closings: list[tuple[CloseReason, bytes]] = []
        self._last_taken = self._discarded = False
        #: How many events were put in so far.
        self.events = 0

    @property
    def reason(self) -> CloseReason | None:
        """Why the mailbox was closed, ``None`` while it is open."""
        return self._closings[0][0] if self._closings else None

    @property
    def pending(self) -> tuple[int, int]:
        """How many writes and bytes wait."""
        with self._lock:
            if self._discarded:
                return 0, 0
            last = self._last
            return len(self._items) + bool(last), self._size + len(last)

    def put(self, data: bytes, *, events: int = 1) -> None:
        """Add a write, which holds so many events, waiting for room as long as there is none.

        :raises StreamClosed: the mailbox is closed, or is being closed while this waits.
        :raises RuntimeError: there is no room, and this is a signal handler that has interrupted a thread in here.
        """
        while not self.offer(data, events=events):
            if is_owned(self._lock):
                raise RuntimeError("a signal handler can't wait until the client has read more: write in a thread")
            self._room.wait(lambda: bool(self._closings) or not self._full(data))

    def offer(self, data: bytes, *, events: int = 1) -> bool:
        """Add a write, which holds so many events, if there is room for it; whether there was. Never waits.

        :raises StreamClosed: the mailbox is closed.
        """
        with self._lock:
            if self._closings:
                raise StreamClosed(self._closings[0][0])
            if self._full(data):
                return False
            self._items.append(data)
            self._size += len(data)
            self.events += events
        self._writes.wake()
        return True

    def take(self, timeout: float | None = None) -> list[bytes] | None:
        """Wait up to ``timeout`` seconds (``None``: without end) for writes; all of them that wait.

        An empty list says that the time is over; ``None`` that the mailbox is closed and empty.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            # In this order: what is put before the end is taken before it.
            closed = bool(self._closings)
            with self._lock:
                items, self._items, self._size = self._items, [], 0
                if closed and not self._last_taken and self._last:
                    self._last_taken = True
                    items.append(self._closings[0][1])
                if self._discarded:
                    items = []
            if items:
                self._room.wake()
                return items
            if closed:
                return None
            remaining = None if deadline is None else deadline - time.monotonic()
            if remaining is not None and remaining <= 0:
                return []
            self._writes.wait(self._has_something, remaining)

    def wait(self, timeout: float) -> bool:
        """Wait up to ``timeout`` seconds until there is a write or the mailbox is closed; whether so."""
        return self._writes.wait(self._has_something, timeout)

    def close(self, reason: CloseReason, *, last: bytes = b"", discard: bool = False) -> bool:
        """Take no more writes and wake all that wait; whether this call was the one that closed. Takes no lock.

        :param last: a write to come after those that wait, whether there is room or not.
        :param discard: drop what waits, as nobody will take it.
        """
        closing = reason, last
        if not self._closings:
            self._closings.append(closing)
        if discard:
            self._discarded = True
            self._items = []  # not cleared: take() may be about to return the list
        self._writes.wake()
        self._room.wake()
        return self._closings[0] is closing

    @property
    def _last(self) -> bytes:
        """The last write, where it still waits."""
        return b"" if self._last_taken or not self._closings else self._closings[0][1]

    def _has_something(self) -> bool:
        return bool(self._items or self._closings)

    def _full(self, data: bytes) -> bool:
        return len(self._items) >= self._max_items or (bool(self._items) and self._size + len(data) > self._max_bytes)
