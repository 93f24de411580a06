"""Delivery: hands on to a dispatcher what many threads publish, in order, while no lock is held.

A thread that publishes puts its message into a queue. If nobody delivers at that moment, the thread does so itself
until the queue is empty: what one thread publishes alone has reached the subscribers when ``publish`` returns. If
another thread delivers, that one takes the message along. So does the thread itself where it publishes from within a
delivery: in a signal handler, or in a subscriber's ``coalesce`` function.
"""

from __future__ import annotations

import threading
import time
from collections import deque

from ...locks import make_lock
from ..dispatcher import Dispatcher
from ..message import Message
from ..reentry import entered

__all__ = ["Delivery"]

# Messages that are handed on at a time: as many as the dispatcher offers to one subscriber before it turns to the next.
_RUN = 64
# Beyond so many messages in the queue, threads that publish wait, up to so many seconds: to deliver takes longer than
# to publish. The thread that delivers has another one go on when it has handed on so many, and one waits.
_BUSY, _PATIENCE, _PAUSE = 256, 1.0, 0.001
# Beyond so many, where a subscriber's function hangs, say, they are dropped here, and subscribers read the log instead.
_MOST = 10_000


class Delivery:
    """See the module. Any thread, any signal handler."""

    def __init__(self, dispatcher: Dispatcher) -> None:
        self._hub = dispatcher
        self._lock = make_lock("channels.delivery")
        self._frames: deque[Message] = deque()
        self._deliverer: int | None = None
        self._waiting: set[int] = set()
        self._dropped: deque[int] = deque(maxlen=1)  # the number of the last for which there was no room

    def queue(self, message: Message) -> None:
        """Have a message delivered by the next :meth:`deliver`. To be called with the log's lock held, for the
        order."""
        if len(self._frames) < _MOST:
            self._frames.append(message)
        else:
            self._dropped.append(message.seq)

    def deliver(self) -> None:
        """Hand on what is in the queue, unless a thread does so already."""
        me = threading.get_ident()
        if self._deliverer == me:
            return  # called from within: it is taken along
        self._hand_on(me)
        if len(self._frames) > _BUSY and me not in self._waiting:
            self._wait(me)

    def _hand_on(self, me: int) -> None:
        handed_on = done = 0
        try:
            while True:
                messages, skipped = self._next(me, done, handed_on)
                done = len(messages)
                handed_on += done
                if skipped is not None:
                    self._hub.claim((), skipped)  # who comes from now on looks for them in the log
                    self._hub.missed(None)
                elif messages:
                    self._hub.deliver(messages, messages[-1].seq)
                else:
                    return
        except BaseException:
            # Something that a signal handler raises. The messages are in the queue still: the next thread begins with
            # them, and a subscriber that has got them already leaves them out.
            if self._deliverer == me:
                self._deliverer = None
            raise

    def _next(self, me: int, done: int, handed_on: int) -> tuple[list[Message], int | None]:
        """What this thread is to deliver now, after it is done with so many, or up to which number messages are left
        out; neither if there is nothing, or another thread delivers."""
        with entered(), self._lock:
            if self._deliverer not in (None, me):
                return [], None
            for _ in range(done):
                self._frames.popleft()
            if self._dropped:
                self._deliverer = me
                return [], self._leave_out()
            if not self._frames or (handed_on >= _BUSY and self._waiting):
                self._deliverer = None
                return [], None
            self._deliverer = me
            # By their places, as other threads append meanwhile, and a deque that grows can't be iterated over.
            return [self._frames[place] for place in range(min(len(self._frames), _RUN))], None

    def _leave_out(self) -> int:
        upto = self._dropped.pop()
        while self._frames:
            upto = max(upto, self._frames.popleft().seq)
        return upto

    def _wait(self, me: int) -> None:
        self._waiting.add(me)
        try:
            deadline = time.monotonic() + _PATIENCE
            while len(self._frames) > _BUSY and time.monotonic() < deadline:
                time.sleep(_PAUSE)
                self._hand_on(me)
        finally:
            with entered(), self._lock:
                self._waiting.discard(me)
            self._hand_on(me)  # it may have been left to this thread just now
