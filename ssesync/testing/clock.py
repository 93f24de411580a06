"""FakeClock: time that passes only in a test, for everything that takes a ``clock=``."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from ..locks import make_condition
from .errors import WaitTimeout

if TYPE_CHECKING:
    from ..retry import Signal

__all__ = ["FakeClock"]

# Seconds between two checks of the signal in a wait that is held: a signal can't call back.
_LOOK = 0.005


class FakeClock:
    """A clock whose waits take no time: each returns at once, moves the clock on and is kept in :attr:`waits`.

    ::

        clock = FakeClock()
        source = EventSource(server.url, clock=clock)
        ...
        assert clock.waits == [1.0, 2.0]

    All methods may be called from any thread.

    :param start: what :meth:`monotonic` returns first, in seconds.
    :param now: what :meth:`time` returns first, in seconds since 1970; some morning in 2026 by default.
    :param hold: waits do not end by themselves but last until :meth:`advance` has moved the clock past their end, or
        until their signal is given: for tests of what ends a wait early. Such a wait raises :class:`WaitTimeout` after
        20 real seconds.
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
        """Seconds, as ``time.monotonic()`` gives them."""
        return self._start + self._passed

    def time(self) -> float:
        """Seconds since 1970, as ``time.time()`` gives them."""
        return self._now + self._passed

    def advance(self, seconds: float) -> None:
        """Let so many seconds pass.

        :raises ValueError: they are negative.
        """
        if seconds < 0:
            raise ValueError(f"time passes forwards only, got {seconds!r} seconds")
        with self._condition:
            self._passed += seconds
            self._condition.notify_all()

    def wait(self, signal: Signal, seconds: float) -> bool:
        """Wait up to ``seconds`` for ``signal``, in this clock's time; whether it is given.

        One that is given already (a ``threading.Event``, a :class:`ssesync.CancelToken`) ends the wait before it
        begins: nothing is kept of it and no time passes.
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
        """Return once ``count`` threads sit in a wait that is held, within ``timeout`` real seconds.

        :raises WaitTimeout: they do not.
        """
        with self._condition:
            if not self._condition.wait_for(lambda: self._waiting >= count, timeout):
                raise WaitTimeout(f"{self._waiting} threads wait on the clock after {timeout:g} s, not {count}")

    def _held(self, signal: Signal, seconds: float, end: float) -> bool:
        patience = time.monotonic() + 20.0
        while not signal.wait(_LOOK):
            if self._passed >= end:
                return signal.wait(0)
            if time.monotonic() > patience:
                raise WaitTimeout(f"nobody moved the clock past a wait of {seconds:g} s, or gave its signal")
        return True
