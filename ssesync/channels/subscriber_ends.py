"""The end of a subscriber: the requests to end it, which any thread and any signal handler may make."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from ..errors import CloseReason
from .dispatcher import Closable
from .queue import MessageQueue
from .reentry import carry_out
from .subscriber_state import TRANSITIONS, Input, State

__all__ = ["EndRequest", "Endable", "Ends"]


class EndRequest(NamedTuple):
    """A request to end a subscriber."""

    reason: CloseReason
    last: bytes = b""
    """Bytes to be sent after the queued messages."""
    discard: bool = False
    """Whether the queued messages are dropped."""
    successor: Closable | None = None
    """The object that serves the client now."""
    replaces_done: bool = False
    """Whether it counts in place of a ``DONE``, whose last events were not sent."""


class Ends(list[EndRequest]):
    """The requests to end one subscriber. Any thread and any signal handler appends. The first one counts, and is never
    removed, but may be replaced if it is ``DONE``."""

    __slots__ = ()

    @property
    def reason(self) -> CloseReason | None:
        """Why the subscriber has ended, ``None`` while it has not."""
        return self[0].reason if self else None

    def request(self, end: EndRequest) -> bool:
        """Append a request. If the subscriber has a successor, that is closed in its place.

        :param end: the request.
        :return: whether it is the first.
        """
        self.append(end)
        first = self[0]
        if first is not end and first.successor is not None:
            first.successor.close(end.reason)
        if first.reason is CloseReason.DONE and end.replaces_done:
            self[0] = end
        return first is end


class Endable:
    """The part of a subscriber that ends it. No method waits for a lock: see :mod:`.reentry`."""

    state: State
    on_ready: Callable[[], object] | None
    _lock: Any
    _queue: MessageQueue
    _ends: Ends

    @property
    def reason(self) -> CloseReason | None:
        """Why the subscriber has ended, ``None`` while it has not."""
        return self._ends.reason

    def close(self, reason: CloseReason, *, last: bytes = b"", discard: bool = False, unsent: bool = False) -> bool:
        """End it. Any thread, any signal handler, any number of times.

        :param reason: why it ends.
        :param last: bytes to be sent after the queued messages.
        :param discard: drop the queued messages, and ``last``. The reason ``REVOKED`` always drops the messages.
        :param unsent: events that were given to the reader are not sent: it does not count as ``DONE``. Nor does it
            after a revocation.
        :return: whether this call was the first one.
        """
        is_revoked = reason is CloseReason.REVOKED
        last = b"" if discard else last
        return self._end(EndRequest(reason, last, discard or is_revoked, replaces_done=unsent or is_revoked))

    def pass_on(self, successor: Closable) -> CloseReason | None:
        """End it, as another object serves the client now. Later requests to end close that object.

        :param successor: the other object. It may be closed any number of times.
        :return: why the subscriber had ended before, ``None`` if it had not.
        """
        return None if self._end(EndRequest(CloseReason.CANCELLED, discard=True, successor=successor)) else self.reason

    def _end(self, end: EndRequest) -> bool:
        is_first = self._ends.request(end)
        self._after(wake=True)
        return is_first

    # With the lock held.

    def _move(self, change: Input) -> None:
        assert self._lock.locked()
        self.state = TRANSITIONS[change].get(self.state, self.state)

    def _end_now(self, reason: CloseReason, *, discard: bool) -> None:
        """End it, for a reason of its own."""
        self._ends.append(EndRequest(reason, discard=discard))
        self._carry_out_ends()

    def _carry_out_ends(self) -> None:
        assert self._lock.locked()
        while self._has_requests():
            later = self.state.ended
            end = self._ends[later]
            if end.discard or self.state.reads_log:  # while it reads the log, queued messages come after a gap
                self._queue.clear()
            if end.discard:
                self._queue.reset = None
            if later:
                del self._ends[1]
            self._move(Input.END)

    def _has_requests(self) -> bool:
        return len(self._ends) > self.state.ended

    # With the lock released.

    def _after(self, *, wake: bool = False) -> None:
        """Carry out requests to end, and wake the reader. Called after the lock was released."""
        if self._ends and self._has_requests():
            carry_out(self._lock, self._has_requests, self._carry_out_ends)
        if wake and self.on_ready is not None:
            self.on_ready()
