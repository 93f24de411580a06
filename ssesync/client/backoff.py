"""Backoff: how long to wait before the next connection, as a value without state; Row, the state of one source.

And the clock that is waited by.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Protocol

from ..errors import RetriesExhausted, SettingsError, excerpt
from ..text import escape
from .outcome import retry_after

__all__ = ["Backoff", "Clock", "Row", "SystemClock"]

logger = logging.getLogger("ssesync")

# Where the first reconnection is to be immediate, the second of a row is not: a server that accepts and closes at
# once would be asked as fast as the machine can.
_STEP = 0.1
# That one connection brought something and was ended in order may be chance, that the next does too a server's habit.
_NOT_AGAIN_BELOW = 1.0
# 2.0 ** 1024 is no float any more; long before that max_delay holds.
_DOUBLINGS = 64


@dataclass(frozen=True)
class Backoff:
    """How long an :class:`EventSource` waits between connections, and when it gives up. Immutable; share it freely.

    A wait is a floor and, on top, a random part. The floor is the reconnection time that the stream asked for with
    ``retry:`` (or the answer with ``Retry-After``), else 0. The random part is anything from 0 to a window that
    starts at ``initial`` and doubles with every failure in a row: so clients that were cut off together do not come
    back together, and none comes earlier than its server asked for.

    :param initial: seconds; the first window. 0 makes the first reconnection immediate.
    :param max_delay: seconds; the widest window, and the longest ``retry:`` that is obeyed (a longer one is
        shortened to this, with a warning). No wait is longer than the two together.
    :param max_retry_after: seconds; the longest ``Retry-After`` that is obeyed.
    :param reset_after: seconds that a stream must have been open, having delivered an event, for the failures before
        it to be forgotten when it breaks: a server that crashes with each connection thus does not pass for a healthy
        one. A stream that delivered an event and is then *ended in order* by its server is no failure, however short it
        was: the row starts anew with it. So that a server which accepts and closes is not asked as fast as it answers,
        no two waits in a row after such ends are below one second where the stream sets no reconnection time.
    :param max_attempts: reconnections in a row, after which :class:`RetriesExhausted` is raised; ``None``: no limit.
    :param max_elapsed: seconds since the first failure of the row, after which no further wait is begun.
    :raises SettingsError: a value is negative or not a number.
    """

    initial: float = 1.0
    max_delay: float = 60.0
    max_retry_after: float = 3600.0
    reset_after: float = 60.0
    max_attempts: int | None = None
    max_elapsed: float | None = None

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if value is None and field.name in ("max_attempts", "max_elapsed"):
                continue
            whole = field.name == "max_attempts"
            number = isinstance(value, int if whole else (int, float)) and not isinstance(value, bool)
            if not (number and 0 <= value < float("inf")):
                kind = "a whole number" if whole else "a number of seconds"
                raise SettingsError(f"Backoff({field.name}=…) takes {kind}, 0 or more, got {excerpt(value)}")

    def window(self, failures: int) -> float:
        """Seconds; the random part of the wait after that many failures in a row (from 1) is between 0 and this."""
        doublings = min(failures - 1, _DOUBLINGS)
        if self.initial:
            return min(self.initial * 2.0**doublings, self.max_delay)
        return min(_STEP * 2.0**doublings, self.max_delay) if doublings else 0.0

    def delay(self, failures: int, floor: float = 0.0, uniform: Callable[[float, float], float] | None = None) -> float:
        """Seconds to wait after that many failures in a row, no less than ``floor``."""
        return floor + (uniform or random.uniform)(0.0, self.window(failures))


class Signal(Protocol):
    """What ends a wait early: a ``threading.Event`` or a :class:`ssesync.CancelToken`."""

    def wait(self, timeout: float | None = None) -> bool:
        """Wait up to ``timeout`` seconds; whether the signal was given."""


class Clock(Protocol):
    """Time, as an :class:`ssesync.EventSource` sees it: a test may bring its own, so that nothing really waits."""

    def monotonic(self) -> float:
        """Seconds from some point on; never goes back."""

    def time(self) -> float:
        """Seconds since 1970, to which the dates in ``Retry-After`` are compared."""

    def wait(self, signal: Signal, seconds: float) -> bool:
        """Wait that long, or until the signal is given; whether it was."""


class SystemClock:
    """The machine's own time."""

    def monotonic(self) -> float:
        """See :meth:`Clock.monotonic`."""
        return time.monotonic()

    def time(self) -> float:
        """See :meth:`Clock.time`."""
        return time.time()

    def wait(self, signal: Signal, seconds: float) -> bool:
        """See :meth:`Clock.wait`."""
        # A lock takes no more (292 years on most systems).
        return signal.wait(min(seconds, threading.TIMEOUT_MAX))


class Row:
    """The failures in a row of one source, on the thread that iterates it."""

    def __init__(self, backoff: Backoff, clock: Clock) -> None:
        self._backoff = backoff
        self._clock = clock
        self._began = 0.0
        self._short = False  # the wait before was below a second, after an end in order
        self._warned: dict[str, float] = {}
        #: How many there were.
        self.failures = 0

    def survived(self, seconds: float) -> None:
        """A stream that delivered something was open for so long."""
        if seconds >= self._backoff.reset_after:
            self.failures = 0
            self._short = False

    def next_delay(self, error: Exception, retry: int | None, *, progressed: bool = False) -> float:
        """Count one more failure; seconds until the next connection.

        :param retry: the reconnection time in milliseconds that the stream asked for.
        :param progressed: the stream was ended in order, after an event: the row starts anew.
        :raises RetriesExhausted: there is to be none.
        """
        now, limits = self._clock.monotonic(), self._backoff
        if progressed:
            self.failures = 0
        if not self.failures:
            self._began = now
        self.failures += 1
        delay = limits.delay(self.failures, self._floor(error, retry))
        if progressed and retry is None:
            if self._short:
                delay = max(delay, min(_NOT_AGAIN_BELOW, limits.max_delay))
            self._short = delay < _NOT_AGAIN_BELOW
        else:
            self._short = False
        elapsed = now - self._began
        if (limits.max_attempts is not None and self.failures > limits.max_attempts) or (
            limits.max_elapsed is not None and elapsed + delay > limits.max_elapsed
        ):
            raise RetriesExhausted(self.failures - 1, elapsed, error) from error
        return delay

    def _floor(self, error: Exception, retry: int | None) -> float:
        """Seconds that the server asked to wait for."""
        limits = self._backoff
        asked = [((retry or 0) / 1000, limits.max_delay, "retry:")]
        asked.append((retry_after(error, self._clock.time()) or 0.0, limits.max_retry_after, "Retry-After"))
        for seconds, limit, name in asked:
            if seconds > limit and self._warned.get(name) != seconds:
                self._warned[name] = seconds
                logger.warning("the server asks with %s to wait for %.1f s; %.1f s it is", escape(name), seconds, limit)
        return max(min(seconds, limit) for seconds, limit, _ in asked)
