"""Timers of the reactor: calls to be made later."""

from __future__ import annotations

import heapq
import itertools
import time
from collections import deque
from collections.abc import Callable

__all__ = ["Timer", "Timers"]

Callback = Callable[[], object]

# Cancelled timers that are kept at most, beyond the number of the others.
_KEPT = 64


class Timer:
    """A call to be made later."""

    __slots__ = ("_call", "due")

    def __init__(self, due: float, call: Callback) -> None:
        #: When it is to be made, on the monotonic clock.
        self.due = due
        self._call: Callback | None = call

    def cancel(self) -> None:
        """Cancel the call. Does nothing after it. Any thread, any number of times."""
        self._call = None

    @property
    def cancelled(self) -> bool:
        """Whether the call was cancelled or made."""
        return self._call is None

    def run(self) -> None:
        """Make the call, once."""
        call, self._call = self._call, None
        if call is not None:
            call()


class Timers:
    """The timers of a reactor, in the order in which they are due. They are added on any thread, without a lock.

    :param every_tick: registers a function that is called twice a second, for as long as it returns True.
    :param run: makes a call on the reactor's thread, and logs its exception.
    """

    def __init__(self, every_tick: Callable[[Callable[[], bool]], object], run: Callable[[Callback], object]) -> None:
        self._every_tick = every_tick
        self._run = run
        self._added: deque[tuple[float, int, Timer]] = deque()
        self._heap: list[tuple[float, int, Timer]] = []
        self._numbers = itertools.count()
        self._most = _KEPT  # when there are more, the cancelled ones are dropped

    def add(self, due: float, call: Callback) -> Timer:
        """Add a call. Any thread.

        :param due: when it is to be made, on the monotonic clock.
        """
        timer = Timer(due, call)
        self._added.append((due, next(self._numbers), timer))
        self._every_tick(self._tick)
        return timer

    def _tick(self) -> bool:
        while self._added:
            heapq.heappush(self._heap, self._added.popleft())
        if len(self._heap) > self._most:
            self._heap = [each for each in self._heap if not each[2].cancelled]
            heapq.heapify(self._heap)
            self._most = 2 * len(self._heap) + _KEPT
        now = time.monotonic()
        while self._heap and (self._heap[0][0] <= now or self._heap[0][2].cancelled):
            self._run(heapq.heappop(self._heap)[2].run)
        return bool(self._heap or self._added)
