"""Admission: the limits of a process's streams and of one key's, and the reconnection times of refused clients."""

from __future__ import annotations

import logging
import time
from collections import Counter

from ..settings import Settings
from ..text import escape
from . import descriptors
from .refusal import ReconnectionTimes
from .wsgi_server import thread_limit

__all__ = ["Admission", "detached_limit", "log_full", "served_limit"]

logger = logging.getLogger("ssesync")


class Admission:
    """Counts the streams of each key and the refused clients. Its methods are called under the lock of the streams."""

    def __init__(self) -> None:
        self._keys: Counter[str] = Counter()
        # When the reservations of each key end, for streams that will come from other processes.
        self._reserved: dict[str, list[float]] = {}
        self._reconnection_times = ReconnectionTimes()
        #: Clients that were refused since the process started.
        self.refused = 0

    def admit(self, key: str, settings: Settings, *, is_full: bool) -> bool:
        """Count one more stream of a key, or one more refused client.

        :param key: the stream's key.
        :param settings: the stream's.
        :param is_full: whether the process holds as many streams as it may.
        :return: whether the stream is admitted.
        """
        per_key = settings.max_streams_per_key
        admitted = not is_full and (per_key is None or self._keys[key] < per_key)
        if admitted:
            self.count(key)
        else:
            self.refused += 1
        return admitted

    def count(self, key: str) -> None:
        """Count a stream of a key as open."""
        self._keys[key] += 1

    def reserve(self, key: str, limit: int, seconds: float) -> bool:
        """Reserve a place for a stream that will come from another process.

        :param key: the stream's key.
        :param limit: how many streams the key may have, reservations included.
        :param seconds: how long the reservation counts, if no stream comes.
        :return: whether the stream is allowed.
        """
        now = time.monotonic()
        while self._reserved and next(iter(self._reserved.values()))[-1] < now:  # in the order of their ends
            del self._reserved[next(iter(self._reserved))]
        ends = [end for end in self._reserved.pop(key, ()) if end > now]
        allowed = self._keys[key] + len(ends) < limit
        if allowed:
            ends.append(now + seconds)
        if ends:
            self._reserved[key] = ends
        return allowed

    def consume(self, key: str) -> None:
        """A stream came from another process: one reservation of its key is over."""
        ends = self._reserved.get(key)
        if ends is not None:
            del ends[0]
            if not ends:
                del self._reserved[key]

    def release(self, key: str) -> None:
        """Count a stream of a key as closed."""
        self._keys[key] -= 1
        if not self._keys[key]:
            del self._keys[key]

    def refuse(self, *, browser: bool, least: float, counted: bool) -> float:
        """See :meth:`ssesync.server.registry.Streams.refuse`."""
        self.refused += not counted
        seconds = self._reconnection_times.give(least)
        if browser:
            self._reconnection_times.record_sent(seconds)
        return seconds

    @property
    def refused_lately(self) -> bool:
        """Whether a browser that connects now may have a long reconnection time from a refusal."""
        return self._reconnection_times.may_be_kept()


def served_limit(settings: Settings) -> int | None:
    """The limit of streams that threads serve; ``None``: no limit."""
    return thread_limit() if settings.max_streams == "auto" else settings.max_streams


def detached_limit(settings: Settings) -> int | None:
    """The limit of detached streams; ``None``: no limit."""
    most, wanted = descriptors.capacity(), settings.max_detached
    return most if wanted == "auto" or wanted is None else wanted if most is None else min(most, wanted)


def log_full(settings: Settings, held: int) -> None:
    """Log a warning that clients are refused, as this process holds as many detached streams as it may.

    :param settings: the refused stream's.
    :param held: detached streams now.
    """
    advice = ""
    if settings.max_detached != detached_limit(settings):
        capacity = f", and there are descriptors for {descriptors.capacity()}"
        advice = f"{capacity}: raise the hard limit of open files (LimitNOFILE=, ulimit -n)"
    logger.warning(
        "this process holds %d detached event streams and refuses more; max_detached=%r%s",
        held,
        settings.max_detached,
        escape(advice),
    )
