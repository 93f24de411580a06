"""Watchdog: calls a function if it is not restarted in time."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from ..cancel import CancelToken

__all__ = ["Watchdog"]

# While it is paused it only waits for its end; a shorter interval than this would only use CPU time.
_SHORTEST_WAIT = 0.02


class Watchdog:
    """A timeout for events, where a socket's timeout does not help: other bytes may arrive all the time.

    It runs on a thread of its own until :meth:`close`, or until it has called the function. The time runs from the
    start.

    :param seconds: the limit.
    :param action: called on that thread; must be quick.
    """

    def __init__(self, seconds: float, action: Callable[[], object]) -> None:
        #: Whether the limit was passed.
        self.expired = False
        self._seconds = seconds
        self._action = action
        self._deadline = time.monotonic() + seconds
        self._closed = CancelToken()  # not a threading.Event, which a signal handler must not set
        threading.Thread(target=self._run, name="ssesync-watchdog", daemon=True).start()

    def restart(self) -> None:
        """Start the time again."""
        self._deadline = time.monotonic() + self._seconds

    def pause(self) -> float:
        """Stop the time.

        :return: the seconds that are left.
        """
        left = self._deadline - time.monotonic()
        self._deadline = float("inf")
        return left

    def resume(self, left: float) -> None:
        """Continue after :meth:`pause`.

        :param left: the seconds that are left.
        """
        self._deadline = time.monotonic() + left

    def close(self) -> None:
        """End the thread. Any number of times."""
        self._closed.set()

    def _run(self) -> None:
        # A restart moves the deadline by the limit at most, so none is missed while the thread sleeps.
        while (left := self._deadline - time.monotonic()) > 0:
            if self._closed.wait(max(min(left, self._seconds), _SHORTEST_WAIT)):
                return
        if self._closed.is_set():
            return
        self.expired = True
        self._action()
