"""Retrying: the waits between attempts (:class:`Backoff`), a client's consecutive failures, a retry loop's log lines.

``Clock`` is the clock of a client's waits.
"""

from __future__ import annotations

import logging
import random
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from .errors import BrokerError, RetriesExhausted, SSEError
from .text import escape
from .validation import check_number

__all__ = ["Backoff", "BackoffState", "Clock", "FailureLog", "Signal", "SystemClock"]

logger = logging.getLogger("ssesync")

# The second reconnection of a series waits also if the first is immediate (initial=0). Otherwise a server that accepts
# and closes at once would get requests as fast as the machine can send them.
_STEP = 0.1
# Seconds; see BackoffState.next_delay. One stream that delivers an event and ends in order may be chance; a second one
# in a row is not.
_LEAST_AFTER_END = 1.0
# 2.0 ** 1024 is not a float any more; max_delay applies long before that.
_DOUBLINGS = 64


@dataclass(frozen=True)
class Backoff:
    """How long an :class:`EventSource` waits between connections, and when it gives up. Immutable, so it can be shared.

    A wait is a floor plus a random part. The floor is the reconnection time that the stream has set with ``retry:`` (or
    the response with ``Retry-After``), else 0. The random part is between 0 and a window that starts at ``initial`` and
    doubles with each consecutive failure. So clients that lost their connections together do not reconnect together,
    and none reconnects earlier than its server has requested.

    :param initial: seconds; the first window. 0 makes the first reconnection immediate.
    :param max_delay: seconds; the widest window, and the longest ``retry:`` that is obeyed (a longer one is
        shortened to this, with a warning). No wait is longer than the two together.
    :param max_retry_after: seconds; the longest ``Retry-After`` that is obeyed.
    :param reset_after: seconds that a stream must have been open, and have delivered an event, for earlier failures
        to be forgotten when it breaks: a server that crashes with each connection thus does not count as healthy.
        A stream that delivered an event and is then *ended in order* by its server is no failure, however short it
        was: the count starts again. Of two consecutive waits after such ends at least one is a second or longer, unless
        the stream sets a reconnection time: a server that accepts and closes must not get requests as fast as it
        answers.
    :param max_attempts: consecutive reconnections after which :class:`RetriesExhausted` is raised; ``None``: no limit.
    :param max_elapsed: seconds since the first of the consecutive failures, after which no further wait begins;
        ``None``: no limit.
    :raises SettingsError: a value is negative or not a number.
    """

    initial: float = 1.0
    max_delay: float = 60.0
    max_retry_after: float = 3600.0
    reset_after: float = 60.0
    max_attempts: int | None = None
    max_elapsed: float | None = None

    def __post_init__(self) -> None:
        for name in ("initial", "max_delay", "max_retry_after", "reset_after", "max_attempts", "max_elapsed"):
            check_number(
                f"Backoff({name}=…)",
                getattr(self, name),
                most=sys.float_info.max,
                whole=name == "max_attempts",
                optional=name in ("max_attempts", "max_elapsed"),
            )

    def window(self, failures: int) -> float:
        """The width of the random part.

        :param failures: the number of consecutive failures, from 1.
        :return: seconds; the random part of the wait is between 0 and this.
        """
        doublings = min(failures - 1, _DOUBLINGS)
        if self.initial:
            return min(self.initial * 2.0**doublings, self.max_delay)
        return min(_STEP * 2.0**doublings, self.max_delay) if doublings else 0.0

    def delay(self, failures: int, floor: float = 0.0, uniform: Callable[[float, float], float] | None = None) -> float:
        """A wait, chosen at random.

        :param failures: the number of consecutive failures, from 1.
        :param floor: the shortest wait, in seconds.
        :param uniform: chooses a number between two; ``None``: ``random.uniform``.
        :return: seconds to wait, at least ``floor``.
        """
        return floor + (uniform or random.uniform)(0.0, self.window(failures))


class Signal(Protocol):
    """A signal that ends a wait early: a ``threading.Event`` or a :class:`ssesync.CancelToken`."""

    def wait(self, timeout: float | None = None) -> bool:
        """Wait for the signal, up to ``timeout`` seconds.

        :return: whether the signal is set.
        """
        ...


class Clock(Protocol):
    """The clock of an :class:`ssesync.EventSource`. A test may replace it, so that nothing really waits."""

    def monotonic(self) -> float:
        """Seconds from some point on; never goes back."""
        ...

    def time(self) -> float:
        """Seconds since 1970, to which the dates in ``Retry-After`` are compared."""
        ...

    def wait(self, signal: Signal, seconds: float) -> bool:
        """Wait for so many seconds, or until the signal is set.

        :return: whether the signal is set.
        """
        ...


class SystemClock:
    """The system's clock."""

    def monotonic(self) -> float:
        """See :meth:`Clock.monotonic`."""
        return time.monotonic()

    def time(self) -> float:
        """See :meth:`Clock.time`."""
        return time.time()

    def wait(self, signal: Signal, seconds: float) -> bool:
        """See :meth:`Clock.wait`."""
        # A lock accepts no longer timeout (292 years on most systems).
        return signal.wait(min(seconds, threading.TIMEOUT_MAX))


class BackoffState:
    """The consecutive failures of one client, on the thread that reads.

    :param backoff: the policy.
    :param clock: the time.
    """

    def __init__(self, backoff: Backoff, clock: Clock) -> None:
        self._backoff = backoff
        self._clock = clock
        self._began = 0.0
        # Whether the wait before this one followed an orderly end and was below _LEAST_AFTER_END.
        self._short = False
        self._warned: dict[str, float] = {}
        #: The number of consecutive failures.
        self.failures = 0

    def record_open(self, seconds: float) -> None:
        """Record how many seconds a stream was open that has delivered an event."""
        if seconds >= self._backoff.reset_after:
            self.failures = 0
            self._short = False

    def next_delay(
        self, error: Exception, retry: int | None, retry_after: float | None, *, progressed: bool = False
    ) -> float:
        """Count one more failure.

        :param error: the failure.
        :param retry: the reconnection time in milliseconds that the stream has set with ``retry:``.
        :param retry_after: the seconds that the response has set with ``Retry-After``.
        :param progressed: the stream was ended in order, after an event: the count starts again.
        :return: seconds until the next connection.
        :raises RetriesExhausted: there is to be no further connection.
        """
        now, limits = self._clock.monotonic(), self._backoff
        if progressed:
            self.failures = 0
        if not self.failures:
            self._began = now
        self.failures += 1
        delay = limits.delay(self.failures, self._floor(retry, retry_after))
        if progressed and retry is None:
            if self._short:
                delay = max(delay, min(_LEAST_AFTER_END, limits.max_delay))
            self._short = delay < _LEAST_AFTER_END
        else:
            self._short = False
        elapsed = now - self._began
        if (limits.max_attempts is not None and self.failures > limits.max_attempts) or (
            limits.max_elapsed is not None and elapsed + delay > limits.max_elapsed
        ):
            raise RetriesExhausted(self.failures - 1, elapsed, error) from error
        return delay

    def _floor(self, retry: int | None, retry_after: float | None) -> float:
        """The seconds that the server has requested, limited."""
        limits = self._backoff
        requested = (
            ("retry:", (retry or 0) / 1000, limits.max_delay),
            ("Retry-After", retry_after or 0.0, limits.max_retry_after),
        )
        for name, seconds, limit in requested:
            if seconds > limit and self._warned.get(name) != seconds:
                self._warned[name] = seconds
                logger.warning(
                    "the server requests a wait of %.1f s (%s); waiting for %.1f s", seconds, escape(name), limit
                )
        return max(min(seconds, limit) for _, seconds, limit in requested)


class FailureLog:
    """The log lines and waits of one retry loop: the first failure of a series is logged, and the recovery.

    For the one thread that runs the loop.

    :param what: the subject of the log lines, for example ``the feed of 'prices': the source``.
    :param first: seconds; the first wait.
    :param longest: seconds; waits double from the first to this one. Each is shortened by up to a half at random, so
        that processes that failed together do not try again together.
    """

    def __init__(self, what: str, first: float, longest: float) -> None:
        self._what = what
        # A wait is between half the delay and the whole: its floor and its window are one half each.
        self._backoff = Backoff(initial=first / 2, max_delay=longest / 2)
        self._failures = 0

    def failed(self, error: Exception | None, *, then: str = "trying again until it works") -> float:
        """Count a failure, and log it if it is the first since the last success.

        :param error: the failure; ``None`` for an end without an error.
        :param then: the next step, for the log line.
        :return: seconds to wait before the next attempt.
        """
        if not self._failures:
            if error is None or isinstance(error, SSEError):
                # Of a reader's errors the name alone: a message may contain a URL with credentials.
                shown = str(error) if isinstance(error, BrokerError) else type(error).__name__
                outcome = "ended" if error is None else f"failed ({shown})"
                logger.warning("%s %s; %s", escape(self._what), escape(outcome), escape(then))
            else:
                logger.error("%s failed; %s", escape(self._what), escape(then), exc_info=error)
        self._failures += 1
        return self._backoff.delay(self._failures, self._backoff.window(self._failures))

    def succeeded(self) -> None:
        """Forget the failures, and log the recovery if there were any."""
        if self._failures:
            self._failures = 0
            logger.warning("%s: it works again", escape(self._what))
