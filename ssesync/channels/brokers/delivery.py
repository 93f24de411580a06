"""Delivery: passes the messages that many threads publish to a dispatcher, in order, while no lock is held.

A thread that publishes appends its message to a queue. If no thread delivers at that moment, it delivers until the
queue is empty: if only one thread publishes, its message has reached the subscribers when ``publish`` returns. If
another thread delivers, that thread delivers this message too. If the call comes from within a delivery, that is from a
signal handler or a subscriber's ``coalesce`` function, the interrupted delivery delivers it.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections import deque

from ..dispatcher import Dispatcher
from ..message import Message
from ..reentry import entered

__all__ = ["Delivery"]

# Messages that are delivered at a time: as many as the dispatcher offers to one subscriber before the next.
_RUN = 64
# Beyond so many queued messages, threads that publish wait, up to so many seconds: to deliver takes longer than to
# publish. After as many messages, the thread that delivers leaves the rest to a waiting thread, if there is one.
_BUSY, _TIMEOUT, _PAUSE = 256, 1.0, 0.001
# Beyond so many, for example while a subscriber's function hangs, messages are dropped here: subscribers read the log.
_MAX_QUEUED = 10_000


class Delivery:
    """See the module. Any thread, any signal handler.

    :param dispatcher: the dispatcher of the process.
    :param lock: the log's lock, which makes the order of the queue that of the log.
    """

    def __init__(self, dispatcher: Dispatcher, lock: threading.Lock) -> None:
        self._dispatcher = dispatcher
        self._lock = lock
        self._queue: deque[Message] = deque()
        self._deliverer: int | None = None  # the thread that delivers
        self._waiting: set[int] = set()  # the threads that wait until the queue is shorter
        self._dropped: int | None = None  # the number of the last message that was dropped

    def put(self, message: Message) -> None:
        """Queue a message for the next :meth:`deliver`. Called with the lock held.

        :param message: the message, newer than all before it.
        """
        assert self._lock.locked()
        if len(self._queue) < _MAX_QUEUED:
            self._queue.append(message)
        else:
            self._dropped = message.seq

    def deliver(self) -> None:
        """Deliver the queued messages, unless another thread delivers already."""
        me = threading.get_ident()
        if self._deliverer == me:
            return  # called from within a delivery, which delivers the rest
        self._deliver_as(me)
        if len(self._queue) > _BUSY and me not in self._waiting:
            self._wait(me)

    def _deliver_as(self, me: int) -> None:
        delivered = done = 0
        try:
            while True:
                messages, skipped = self._next(me, done, delivered)
                done = len(messages)
                delivered += done
                if skipped is not None:
                    self._dispatcher.advance((), skipped)  # a later subscriber reads them from the log
                    self._dispatcher.missed(None)
                elif messages:
                    self._dispatcher.deliver(messages, messages[-1].seq)
                else:
                    return
        except BaseException:
            # Raised by a signal handler. The messages are still in the queue: the next thread delivers them again, and
            # subscribers ignore those that they have.
            if self._deliverer == me:
                self._deliverer = None
            raise

    def _next(self, me: int, done: int, delivered: int) -> tuple[list[Message], int | None]:
        """Remove the messages that this thread has delivered, and choose the next ones.

        :param me: the thread.
        :param done: how many messages it has delivered since the last call.
        :param delivered: how many in all.
        :return: the messages to deliver next, or the number up to which messages were dropped; neither if the queue is
            empty, or another thread delivers.
        """
        with entered(), self._lock:
            if self._deliverer not in (None, me):
                return [], None
            for _ in range(done):
                self._queue.popleft()
            if self._dropped is not None:
                self._deliverer = me
                last = self._queue[-1].seq if self._queue else 0
                skipped, self._dropped = max(self._dropped, last), None
                self._queue.clear()
                return [], skipped
            if not self._queue or (delivered >= _BUSY and self._waiting):
                self._deliverer = None
                return [], None
            self._deliverer = me
            return list(itertools.islice(self._queue, _RUN)), None

    def _wait(self, me: int) -> None:
        self._waiting.add(me)
        try:
            deadline = time.monotonic() + _TIMEOUT
            while len(self._queue) > _BUSY and time.monotonic() < deadline:
                time.sleep(_PAUSE)
                self._deliver_as(me)
        finally:
            with entered(), self._lock:
                self._waiting.discard(me)
            self._deliver_as(me)  # another thread may have left the rest to this one just now
