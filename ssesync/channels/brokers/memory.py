"""The broker for one process: the log is in its memory, and threads that publish deliver to the subscribers."""

from __future__ import annotations

import bisect
import heapq
import itertools
import logging
import operator
import os
import secrets
import signal
import sys
import time
from collections import OrderedDict, deque
from collections.abc import Iterable, Mapping
from typing import Any

from ..broker import Broker
from ..log import Page, merged
from ..message import Message, compiled
from ..reentry import entered
from .delivery import Delivery

__all__ = ["MemoryBroker"]

logger = logging.getLogger("ssesync")


def _is_worker() -> bool:
    """Whether a server has forked this process to serve requests."""
    # The signal handlers of gunicorn's worker are methods of an object that has the worker's process id, so in a child
    # of the worker the id differs. Only uWSGI itself has a module of that name.
    handler = signal.getsignal(signal.SIGUSR1) if "gunicorn" in sys.modules else None
    worker = getattr(handler, "__self__", None)
    return "uwsgi" in sys.modules or getattr(worker, "pid", None) == os.getpid()


class Log:
    """A channel's events."""

    def __init__(self) -> None:
        self.entries: deque[tuple[int, float, Message]] = deque()  # seq, time, message
        self.size = 0
        self.trimmed = 0  # up to this seq

    def after(self, seq: int, limit: int) -> list[Message]:
        """The messages after a number.

        :param seq: the number.
        :param limit: how many at most: else each page of a client that lags far would cost as much as all of them.
        :return: the messages.
        """
        first = bisect.bisect_right(self.entries, seq, key=operator.itemgetter(0))
        return [message for _, _, message in itertools.islice(self.entries, first, first + limit)]


class MemoryBroker(Broker):
    """``memory://``: for a single process. Its log ends with the process; a forked child begins a log of its own.

    Publishing costs a microsecond or two for each subscriber, on the thread that publishes.
    """

    _made_in = 0  # the id of the process that made the broker

    def _reset(self) -> None:
        super()._reset()
        self._made_in = self._made_in or os.getpid()
        self._warned_of_fork = self._made_in == os.getpid()
        self._seq = 0
        self._logs: OrderedDict[str, Log] = OrderedDict()  # in the order of their last events
        self._base = 0  # up to this seq, channels may be missing
        self._warned = False
        self._delivery = Delivery(self.dispatcher, self._lock)
        self.dispatcher.epoch = secrets.token_hex(4)

    def warn_once(self, environ: Mapping[str, Any]) -> None:
        """See :class:`Broker`."""
        if environ.get("wsgi.multiprocess") and not self._warned:
            self._warned = True
            logger.warning(
                "memory:// reaches the subscribers of one process, and this server runs several: use sqlite:///path on "
                "one machine, redis:// on many, or a single process with threads"
            )

    def _warn_in_child(self) -> None:
        """Log a warning, once in a forked process without subscribers, that no subscriber gets what it publishes.

        A server's workers are forked too. Where there are several, :meth:`warn_once` logs it.
        """
        if not self._warned_of_fork:
            self._warned_of_fork = True
            if not self._listening and not _is_worker():
                logger.warning(
                    "an event was published on memory:// in process %d, which was forked from the one that made the "
                    "broker: it reaches the subscribers of this process alone, and this process has none; use "
                    "sqlite:////path on one machine, redis:// on many",
                    os.getpid(),
                )

    def _append(self, channel: str, body: bytes) -> str:
        self._warn_in_child()
        limits, now = self.limits, time.monotonic()
        with entered(), self._lock:
            self._seq += 1
            message = Message.make(self.dispatcher.epoch, self._seq, channel, body)
            log = self._logs.get(channel)
            if log is None:
                log = self._logs[channel] = Log()
                log.trimmed = self._base
            self._logs.move_to_end(channel)
            log.entries.append((message.seq, now, message))
            log.size += len(message)
            while len(log.entries) > 1 and (len(log.entries) > limits.max_events or log.size > limits.max_bytes):
                self._trim(log)
            self._expire(log, now)
            self._remove_channels(now)
            self._delivery.put(message)  # in the order of the log
        self._delivery.deliver()
        return f"{self.dispatcher.epoch}-{message.seq}"

    def _head(self) -> tuple[str, int]:
        with entered(), self._lock:
            return self.dispatcher.epoch, self._seq

    def read(self, epoch: str, after: int, channels: Iterable[str], patterns: Iterable[str], limit: int) -> Page:
        """See :class:`Broker`."""
        patterns = tuple(patterns)
        with entered(), self._lock:
            self._remove_channels(time.monotonic())
            names = dict.fromkeys(channels)
            if patterns:
                names.update(dict.fromkeys(filter(compiled(*patterns).fullmatch, self._logs)))
            logs = [self._logs[name] for name in names if name in self._logs]
            # Channels that were removed may have had events.
            base = self._base if patterns or len(logs) < len(names) else 0
            for log in logs:
                self._expire(log, time.monotonic())
            if epoch != self.dispatcher.epoch or after > self._seq:
                return Page([], True, "unknown", self.dispatcher.epoch, self._seq)
            if after < max([base, *(log.trimmed for log in logs)]):
                return Page([], True, "trimmed", self.dispatcher.epoch, self._seq)
            messages = heapq.merge(*(log.after(after, limit + 1) for log in logs), key=lambda message: message.seq)
            return merged(messages, limit, self.dispatcher.epoch, self._seq)

    def _expire(self, log: Log, now: float) -> None:
        max_age = self.limits.max_age
        if max_age is not None:
            while log.entries and log.entries[0][1] < now - max_age:
                self._trim(log)

    def _remove_channels(self, now: float) -> None:
        max_age = self.limits.max_age
        while self._logs:
            name, log = next(iter(self._logs.items()))
            too_old = max_age is not None and (not log.entries or log.entries[-1][1] < now - max_age)
            if not too_old and len(self._logs) <= self.limits.max_channels:
                return
            self._base = max(self._base, log.trimmed, log.entries[-1][0] if log.entries else 0)
            del self._logs[name]

    @staticmethod
    def _trim(log: Log) -> None:
        seq, _, message = log.entries.popleft()
        log.trimmed = seq
        log.size -= len(message)
