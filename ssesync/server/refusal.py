"""What a client is answered that can't be served now: there is no room for it, or the broker can't be reached.

A browser's ``EventSource`` gives up for good on every status but 200 (HTML standard, "Server-sent events", section
"Processing model"), and its page gets no more events until somebody loads it anew. After a 200 that ends it comes back
by itself, after the time that a ``retry:`` said. So it is answered that. A browser shows in its ``Accept``, which is
``text/event-stream`` and nothing else. Everybody else gets 503 with ``Retry-After``, which HTTP clients understand.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Mapping
from typing import Any

from ..wire import MEDIA_TYPE

__all__ = ["ReturnTimes", "is_event_source", "retry_field", "unavailable_headers"]


class ReturnTimes:
    """When refused clients are to come back: at most :attr:`rate` of them in a second, 3 to 60 seconds from now, and up
    to twice as late by chance.

    Each gets the next free place in a time table. So the first clients of a crowd come back soon, the last ones late,
    and when the crowd has gone the times are short again. Its methods are called under the lock of the streams.
    """

    #: Clients that come back in a second, beyond 60 seconds more.
    rate = 100.0
    #: Seconds until a client comes back, least and most, before chance.
    least, most = 3.0, 60.0
    # Seconds by which a client may be late because of its network or a computer that slept.
    _late = 30.0

    def __init__(self) -> None:
        self._next = self._until = -math.inf

    def give(self, least: float = 0.0) -> float:
        """Seconds after which one more client is to come back, at least ``least``."""
        now = time.monotonic()
        self._next = max(self._next + 1 / self.rate, now + self.least)
        self._next = min(self._next, now + self.most)
        return max(self._next - now, least) * random.uniform(1, 2)

    def promise(self, seconds: float) -> None:
        """A browser was told this time, and keeps to it for all its later connections until it is told another."""
        self._until = max(self._until, time.monotonic() + seconds + self._late)

    def are_kept(self) -> bool:
        """Whether there may be browsers that are still to come back at a time which they were told."""
        return time.monotonic() < self._until


def is_event_source(environ: Mapping[str, Any]) -> bool:
    """Whether a request is that of a browser's ``EventSource``."""
    accept = str(environ.get("HTTP_ACCEPT", ""))
    return environ.get("REQUEST_METHOD") == "GET" and accept.strip(" \t").lower() == MEDIA_TYPE


def retry_field(seconds: float) -> bytes:
    """A block that does nothing but tell a browser when to come back."""
    return b"retry: %d\n" % math.ceil(seconds * 1000)


def unavailable_headers(seconds: float) -> list[tuple[str, str]]:
    """The headers of a 503."""
    return [
        ("Retry-After", str(math.ceil(seconds))),
        ("Content-Type", "text/plain; charset=utf-8"),
        ("Cache-Control", "no-store"),
    ]
