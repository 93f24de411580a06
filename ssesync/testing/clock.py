"""FakeClock: a clock for tests, for each class that takes a ``clock=``."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from ..locks import make_condition
from .errors import WaitTimeout

if TYPE_CHECKING:
    from ..retry import Signal

__all__ = ["FakeClock"]

# Seconds between two checks of the signal in a wait that is held: a signal can't call back.
_CHECK_SECONDS = 0.005


class FakeClock:
    """A clock whose waits take no time: each returns at once, advances the clock and is kept in :attr:`waits`.

    ::

        clock = FakeClock()
        source = EventSource(server.url, clock=clock)
        ...
        assert clock.waits == [1.0, 2.0]

    All methods may be called from any thread.

    :param start: the first result of :meth:`monotonic`, in seconds.
    :param now: the first result of :meth:`time`, in seconds since 1970; a morning in 2026 by default.
    :param hold: waits do not end by themselves but last until :meth:`advance` has moved the clock past their end, or
        until their signal is set: for tests of signals that end a wait early. Such a wait raises :class:`WaitTimeout`
        after 20 real seconds.
    """

    def __init__(self, start: float = 1000.0, now: float = 1_780_000_000.0, *, hold: bool = False) -> None:
        self._condition = make_condition("testing.clock")
        self._passed = 0.0
        self._start = start
        self._now = now
        self._hold = hold
        self._waiting = 0
        self._waits: list[float] = []

    @property
    def waits(self) -> list[float]:
        """The seconds of every wait so far, in the order in which they began. A copy."""
        with self._condition:
            return list(self._waits)

    @property
    def waiting(self) -> int:
        """How many threads are in a wait now."""
        return self._waiting

    def monotonic(self) -> float:
        """The clock's time, like ``time.monotonic()``.

        :return: seconds.
        """
        return self._start + self._passed

    def time(self) -> float:
        """The date, like ``time.time()``.

        :return: seconds since 1970.
        """
        return self._now + self._passed

    def advance(self, seconds: float) -> None:
        """Advance the clock.

        :param seconds: by how much.
        :raises ValueError: they are negative.
        """
        if seconds < 0:
            raise ValueError(f"time passes forwards only, got {seconds!r} seconds")
        with self._condition:
            self._passed += seconds
            self._condition.notify_all()

    def wait(self, signal: Signal, seconds: float) -> bool:
        """Wait for a signal in this clock's time.

        If the signal is set already, no time passes, and the wait is not kept in :attr:`waits`.

        :param signal: a ``threading.Event`` or a :class:`ssesync.CancelToken`.
        :param seconds: how long at most.
        :return: whether it is set.
        """
        if signal.wait(0):
            return True
        with self._condition:
            self._waits.append(seconds)
            end = self._passed + seconds
            if self._hold:
                self._waiting += 1
            else:
                self._passed += max(0.0, seconds)
            self._condition.notify_all()
        if not self._hold:
            return signal.wait(0)
        try:
            return self._held(signal, seconds, end)
        finally:
            with self._condition:
                self._waiting -= 1
                self._condition.notify_all()

    def wait_until_waiting(self, count: int = 1, timeout: float = 20.0) -> None:
        """Wait until so many threads are in a wait that is held.

        :param count: how many.
        :param timeout: real seconds to wait at most.
        :raises WaitTimeout: fewer are.
        """
        with self._condition:
            if not self._condition.wait_for(lambda: self._waiting >= count, timeout):
                raise WaitTimeout(f"{self._waiting} threads wait on the clock after {timeout:g} s, not {count}")

    def _held(self, signal: Signal, seconds: float, end: float) -> bool:
        deadline = time.monotonic() + 20.0
        while not signal.wait(_CHECK_SECONDS):
            if self._passed >= end:
                return signal.wait(0)
            if time.monotonic() > deadline:
                raise WaitTimeout(f"the clock was not moved past a wait of {seconds:g} s, nor was its signal set")
        return True
