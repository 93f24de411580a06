"""Watchdog: calls something once when nothing has restarted it for so many seconds."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from ..cancel import CancelToken

__all__ = ["Watchdog"]

# While it is paused it has nothing to wait for but its end; a shorter limit than this would only burn time then.
_SHORTEST_WAIT = 0.02


class Watchdog:
    """A limit to silence that is no silence of a socket: of events, among bytes that are none.

    It has a thread of its own until :meth:`close`, or until it has called. The clock runs from the start.

    :param seconds: the limit.
    :param action: called on that thread; must be quick.
    """

    def __init__(self, seconds: float, action: Callable[[], object]) -> None:
        #: Whether the limit was passed.
        self.expired = False
        self._seconds = seconds
        self._action = action
        self._deadline = time.monotonic() + seconds
        self._closed = CancelToken()  # no threading.Event, which a signal handler must not set
        threading.Thread(target=self._run, name="ssesync-watchdog", daemon=True).start()

    def restart(self) -> None:
        """Begin anew with the whole time."""
        self._deadline = time.monotonic() + self._seconds

    def pause(self) -> float:
        """Stop the clock; the seconds that are left."""
        left = self._deadline - time.monotonic()
        self._deadline = float("inf")
        return left

    def resume(self, left: float) -> None:
        """Go on with so many seconds left."""
        self._deadline = time.monotonic() + left

    def close(self) -> None:
        """End it. Any number of times."""
        self._closed.set()

    def _run(self) -> None:
        # A deadline only ever moves on by as much as the limit, so none is slept over.
        while (left := self._deadline - time.monotonic()) > 0:
            if self._closed.wait(max(min(left, self._seconds), _SHORTEST_WAIT)):
                return
        if self._closed.is_set():
            return
        self.expired = True
        self._action()
