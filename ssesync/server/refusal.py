"""The parts of an answer to a client that can't be served now: over a limit, or while the broker can't be reached.

A browser's ``EventSource`` gives up for good on every status but 200 (HTML standard, "Server-sent events", section
"Processing model"), and its page gets no more events until it is reloaded. After a 200 that ends it reconnects by
itself, after the time of a ``retry:`` field. So it gets a 200 with that field. An ``EventSource`` is recognised by its
``Accept``, which is ``text/event-stream`` alone. All others get 503 with ``Retry-After``, as HTTP clients expect.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Mapping
from typing import Any

from ..wire import MEDIA_TYPE

__all__ = ["ReconnectionTimes", "is_event_source", "retry_field", "unavailable_headers"]


class ReconnectionTimes:
    """The times at which refused clients reconnect: at most :attr:`rate` clients a second, 3 to 60 seconds from now,
    and at random up to twice as late.

    Each client gets the next free time. So of many refused clients the first ones reconnect soon and the last ones
    late, and when no more are refused the times are short again. The methods are called under the lock of the streams.
    """

    #: Clients that reconnect in a second; more if that would take over 60 seconds.
    rate = 100.0
    #: The least and the most seconds until a client reconnects, before the random part.
    least, most = 3.0, 60.0
    # Seconds by which a client may be late, because of its network or because its computer was asleep.
    _late = 30.0

    def __init__(self) -> None:
        self._next = self._until = -math.inf

    def give(self, least: float = 0.0) -> float:
        """Choose the reconnection time of one more client.

        :param least: the shortest one, in seconds.
        :return: seconds from now.
        """
        now = time.monotonic()
        self._next = max(self._next + 1 / self.rate, now + self.least)
        self._next = min(self._next, now + self.most)
        return max(self._next - now, least) * random.uniform(1, 2)

    def record_sent(self, seconds: float) -> None:
        """Record that a browser is sent this reconnection time, which it keeps for later connections until it is sent
        another.

        :param seconds: the result of :meth:`give`.
        """
        self._until = max(self._until, time.monotonic() + seconds + self._late)

    def may_be_kept(self) -> bool:
        """Whether there may be browsers that have not reconnected since :meth:`record_sent`."""
        return time.monotonic() < self._until


def is_event_source(environ: Mapping[str, Any]) -> bool:
    """Whether a request is that of a browser's ``EventSource``."""
    accept = str(environ.get("HTTP_ACCEPT", ""))
    return environ.get("REQUEST_METHOD") == "GET" and accept.strip(" \t").lower() == MEDIA_TYPE


def retry_field(seconds: float) -> bytes:
    """The line that sets a browser's reconnection time."""
    return b"retry: %d\n" % math.ceil(seconds * 1000)


def unavailable_headers(seconds: float) -> list[tuple[str, str]]:
    """The headers of a 503."""
    return [
        ("Retry-After", str(math.ceil(seconds))),
        ("Content-Type", "text/plain; charset=utf-8"),
        ("Cache-Control", "no-store"),
    ]
