"""Mailbox: the bounded queue between the threads that write a stream and its consumer.

A lock protects the pending writes. It is held for a few steps and never while a thread waits. It does not protect the
end, as a signal handler may close the mailbox on a thread that holds the lock. So one uninterruptible operation sets
the reason, and the waiting threads are woken after it. A producer that waits until the mailbox is not full, and a
consumer, check the reason each time.
"""

from __future__ import annotations

from collections.abc import Callable

from ..errors import CloseReason, StreamClosed
from ..locks import Waiters, is_owned, make_rlock
from .source import END, PENDING, Pulled

__all__ = ["Mailbox"]


class Mailbox:
    """A bounded queue of encoded writes. Every method may be called from any thread, :meth:`close` also from a signal
    handler.

    :param max_items: writes that may wait.
    :param max_bytes: bytes that may wait. A larger write is accepted when nothing else waits.
    """

    def __init__(self, max_items: int = 256, max_bytes: int = 1024 * 1024) -> None:
        self._max_items = max_items
        self._max_bytes = max_bytes
        self._lock = make_rlock("server.mailbox")  # re-entrant: a signal handler may read what is pending
        self._not_full = Waiters()
        self._items: list[bytes] = []
        self._size = 0
        # Each is a reason to close and a last write; the first one counts.
        self._closings: list[tuple[CloseReason, bytes]] = []
        self._last_pulled = False
        self._discards: list[CloseReason] = []  # the reasons for which pending writes are dropped
        self._dropped = False  # whether a write was, or a part of the pulled bytes
        #: How many events were added so far.
        self.events = 0
        #: See :class:`ssesync.server.source.Source`.
        self.on_ready: Callable[[], object] | None = None

    @property
    def reason(self) -> CloseReason | None:
        """Why the mailbox was closed, ``None`` while it is open. ``DONE`` only while nothing was dropped."""
        if not self._closings:
            return None
        reason = self._closings[0][0]
        return self._discards[0] if self._dropped and reason is CloseReason.DONE else reason

    @property
    def is_idle(self) -> bool:
        """Whether it is open and no write waits. Takes no lock."""
        return not (self._items or self._closings)

    @property
    def pending(self) -> tuple[int, int]:
        """How many writes and bytes wait."""
        with self._lock:
            if self._discards:
                return 0, 0
            last = self._last
            return len(self._items) + bool(last), self._size + len(last)

    def put(self, data: bytes, *, events: int = 1) -> None:
        """Add a write, waiting without a limit while the mailbox is full.

        :param data: the write.
        :param events: how many events it holds.
        :raises StreamClosed: the mailbox is closed, or is closed while this waits.
        :raises RuntimeError: the mailbox is full, and the caller is a signal handler that has interrupted a method of
            it.
        """
        while not self.offer(data, events=events):
            if is_owned(self._lock):
                raise RuntimeError("a signal handler can't wait until the client has read more: write in a thread")
            self._not_full.wait(lambda: bool(self._closings) or not self._full(data))

    def offer(self, data: bytes, *, events: int = 1) -> bool:
        """Add a write unless the mailbox is full. Never waits.

        :param data: the write.
        :param events: how many events it holds.
        :return: whether it was added.
        :raises StreamClosed: the mailbox is closed.
        """
        with self._lock:
            if self._closings:
                raise StreamClosed(self.reason or CloseReason.DONE)
            if self._full(data):
                return False
            self._items.append(data)
            if self._discards:  # since the check: close() takes no lock
                self._dropped = True
            self._size += len(data)
            self.events += events
        ready = self.on_ready
        if ready is not None:
            ready()
        return True

    def pull(self, most: int) -> Pulled:
        """See :meth:`ssesync.server.source.Source.pull`."""
        # In this order: a write before the end is pulled before it.
        closed = bool(self._closings)
        with self._lock:
            items = self._items
            if self._size <= most:
                self._items, self._size = [], 0
            else:
                items = self._first(most)
            if closed and not self._items and self._last:
                items.append(self._last)
                self._last_pulled = True
            if self._discards:
                self._dropped = self._dropped or bool(items)
                items = []
        if items:
            self._not_full.wake()
            return items[0] if len(items) == 1 else b"".join(items)
        return END if closed else PENDING

    def wait(self, timeout: float) -> bool:
        """Wait until there is a write to pull, or the mailbox is closed. For one thread, before the consumer pulls.

        :param timeout: in seconds.
        :return: whether there is a write, or the mailbox is closed.
        """
        consumers, waiters = self.on_ready, Waiters()

        def wake() -> None:
            waiters.wake()
            if consumers is not None:
                consumers()

        self.on_ready = wake
        try:
            return waiters.wait(lambda: bool(self._items or self._closings), timeout)
        finally:
            self.on_ready = consumers

    def close(self, reason: CloseReason, *, last: bytes = b"", discard: bool = False, dropped: bool = False) -> bool:
        """Accept no more writes and wake all waiting threads. Takes no lock.

        :param reason: why.
        :param last: a write after the pending ones, even if the mailbox is full.
        :param discard: drop the pending writes. If there are any, this reason replaces ``DONE``.
        :param dropped: with ``discard``: the consumer drops some of the bytes that it has pulled, which counts as well.
        :return: whether this call was the first one.
        """
        closing = reason, last
        if not self._closings:
            self._closings.append(closing)
        if discard:
            self._discards.append(reason)
            if dropped or self._items or self._last:
                self._dropped = True
            self._items = []  # not cleared: pull() may be about to return the list
        ready = self.on_ready
        if ready is not None:
            ready()
        self._not_full.wake()
        return self._closings[0] is closing

    def _first(self, most: int) -> list[bytes]:
        """Remove and return the first writes that have up to ``most`` bytes together, at least one."""
        items, count, size = self._items, 0, 0
        while count < len(items) and (not count or size + len(items[count]) <= most):
            size += len(items[count])
            count += 1
        self._items, self._size = items[count:], self._size - size
        return items[:count]

    @property
    def _last(self) -> bytes:
        """The last write, while it still waits."""
        return b"" if self._last_pulled or not self._closings else self._closings[0][1]

    def _full(self, data: bytes) -> bool:
        return len(self._items) >= self._max_items or (bool(self._items) and self._size + len(data) > self._max_bytes)
