"""Mailbox: what waits between a producer and the thread that serves its client. Bounded, closable, one condition.

Both ways of waiting, a producer's for room and the server's for something to send, and every way of ending go
through the one condition: so whoever is blocked wakes whatever happens, and there is no second lock to order.
"""

from __future__ import annotations

import time

from ..errors import CloseReason, StreamClosed
from ..locks import make_condition

__all__ = ["Mailbox"]


class Mailbox:
    """A bounded queue of encoded writes. Every method may be called from any thread.

    :param max_items: writes that may wait.
    :param max_bytes: bytes that may wait. A write larger than that is taken when nothing else waits.
    """

    def __init__(self, max_items: int = 256, max_bytes: int = 1024 * 1024) -> None:
        self._max_items = max_items
        self._max_bytes = max_bytes
        self._condition = make_condition("server.mailbox")
        self._items: list[bytes] = []
        self._size = 0
        self._waiting = 0
        self._reason: CloseReason | None = None
        #: How many events were put in so far.
        self.events = 0

    @property
    def reason(self) -> CloseReason | None:
        """Why the mailbox was closed, ``None`` while it is open."""
        return self._reason

    @property
    def pending(self) -> tuple[int, int]:
        """How many writes and bytes wait."""
        with self._condition:
            return len(self._items), self._size

    def put(self, data: bytes, *, events: int = 1) -> None:
        """Add a write, which holds so many events, waiting for room as long as there is none.

        :raises StreamClosed: the mailbox is closed, or is being closed while this waits.
        """
        with self._condition:
            while self._reason is None and self._full(data):
                self._wait(None)
            self._add(data, events)

    def offer(self, data: bytes, *, events: int = 1) -> bool:
        """Add a write, which holds so many events, if there is room for it; whether there was. Never waits.

        :raises StreamClosed: the mailbox is closed.
        """
        with self._condition:
            if self._reason is None and self._full(data):
                return False
            self._add(data, events)
            return True

    def take(self, timeout: float | None = None) -> list[bytes] | None:
        """Wait up to ``timeout`` seconds (``None``: without end) for writes; all of them that wait.

        An empty list says that the time is over; ``None`` that the mailbox is closed and empty.
        """
        with self._condition:
            deadline = None if timeout is None else time.monotonic() + timeout
            while not self._items:
                if self._reason is not None:
                    return None
                remaining = None if deadline is None else deadline - time.monotonic()
                if remaining is not None and remaining <= 0:
                    return []
                self._wait(remaining)
            items, self._items, self._size = self._items, [], 0
            self._wake()
            return items

    def wait(self, timeout: float) -> bool:
        """Wait up to ``timeout`` seconds until there is a write or the mailbox is closed; whether so."""
        with self._condition:
            deadline = time.monotonic() + timeout
            while not self._items and self._reason is None:
                remaining = deadline - time.monotonic()
                if remaining <= 0:
                    return False
                self._wait(remaining)
            return True

    def close(self, reason: CloseReason, *, last: bytes = b"", discard: bool = False) -> bool:
        """Take no more writes and wake all who wait; whether this call was the one that closed.

        :param last: a write to come after those that wait, whether there is room or not.
        :param discard: drop what waits, as nobody will take it.
        """
        with self._condition:
            if self._reason is not None:
                if discard:
                    self._items.clear()
                return False
            self._reason = reason
            if discard:
                self._items.clear()
            if last:
                self._items.append(last)
            self._wake()
            return True

    def _full(self, data: bytes) -> bool:
        return len(self._items) >= self._max_items or (bool(self._items) and self._size + len(data) > self._max_bytes)

    def _add(self, data: bytes, events: int) -> None:
        if self._reason is not None:
            raise StreamClosed(self._reason)
        self._items.append(data)
        self._size += len(data)
        self.events += events
        self._wake()

    def _wait(self, timeout: float | None) -> None:
        self._waiting += 1
        try:
            self._condition.wait(timeout)
        finally:
            self._waiting -= 1

    def _wake(self) -> None:
        # notify_all costs a microsecond even when nobody listens, and a busy producer meets nobody.
        if self._waiting:
            self._condition.notify_all()
