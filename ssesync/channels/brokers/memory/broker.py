"""The broker for one process: the log is in its memory, and threads that publish deliver to the subscribers."""

from __future__ import annotations

import logging
import os
import secrets
import signal
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ...broker import Broker
from ...entry import Entry, Start
from ...log import Page
from ...message import Message
from ...reentry import entered
from ...runs.record import RunRecord
from ..acceptance import ACCEPTED, accept
from ..delivery import Delivery
from .log import MemoryLog

__all__ = ["MemoryBroker"]

logger = logging.getLogger("ssesync")


def _is_worker() -> bool:
    """Whether a server has forked this process to serve requests."""
    # The signal handlers of gunicorn's worker are methods of an object that has the worker's process id, so in a child
    # of the worker the id differs. Only uWSGI itself has a module of that name.
    handler = signal.getsignal(signal.SIGUSR1) if "gunicorn" in sys.modules else None
    worker = getattr(handler, "__self__", None)
    return "uwsgi" in sys.modules or getattr(worker, "pid", None) == os.getpid()


class MemoryBroker(Broker):
    """``memory://``: for a single process. Its log ends with the process; a forked child begins a log of its own.

    Publishing costs a microsecond or two for each subscriber, on the thread that publishes.
    """

    #: See :class:`Broker`.
    is_shared = False
    _made_in = 0  # the id of the process that made the broker

    def _reset(self) -> None:
        super()._reset()
        self._made_in = self._made_in or os.getpid()
        self._warned_of_fork = self._made_in == os.getpid()
        self._warned = False
        self._delivery = Delivery(self.dispatcher, self._lock)
        self.dispatcher.begin(secrets.token_hex(4), 0)
        self._log = MemoryLog(self.dispatcher.epoch, self.limits)

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
        with entered(), self._lock:
            message = self._log.append(channel, body)
            self._delivery.put(message)  # in the order of the log
        self._delivery.deliver()
        return f"{self.dispatcher.epoch}-{message.seq}"

    def _append_many(self, entries: Sequence[Entry], *, whole: bool) -> tuple[str, list[int]]:
        self._warn_in_child()
        with entered(), self._lock:
            numbers = accept(entries, self._log.state_of, whole=whole)
            for index, answer in enumerate(numbers):
                if answer == ACCEPTED:
                    message = self._log.append_accepted(entries[index])
                    self._delivery.put(message)
                    numbers[index] = message.seq
        self._delivery.deliver()
        return self.dispatcher.epoch, numbers

    def _head(self) -> tuple[str, int]:
        with entered(), self._lock:
            return self._log.epoch, self._log.seq

    def read(self, epoch: str, after: int, channels: Iterable[str], patterns: Iterable[str], limit: int) -> Page:
        """See :class:`Broker`."""
        names, patterns = tuple(channels), tuple(patterns)
        with entered(), self._lock:
            return self._log.read(epoch, after, names, patterns, limit)

    def start_of(self, channels: Iterable[str], patterns: Iterable[str], last: int | None) -> Start:
        """See :class:`Broker`."""
        names, patterns = tuple(channels), tuple(patterns)
        with entered(), self._lock:
            return self._log.start_of(names, patterns, last)

    def find(self, epoch: str, seq: int) -> Message | None:
        """See :class:`Broker`."""
        with entered(), self._lock:
            return self._log.find(seq) if epoch == self._log.epoch else None

    def _has_channel(self, name: str) -> bool:
        with entered(), self._lock:
            return self._log.has(name)

    # Runs. Their owner ends together with the log.

    def _begin_run(self, record: RunRecord, most: int | None, restart: bool) -> tuple[bool, RunRecord | None]:
        with entered(), self._lock:
            return self._log.add_run(record, most, restart)

    def _own_run(self, name: str, owner: str) -> bool:
        with entered(), self._lock:
            return self._log.runs.own(name, owner)

    def _find_run(self, name: str) -> RunRecord | None:
        with entered(), self._lock:
            return self._log.runs.get(name)

    def _renew_owner(self, owner: str, lease: float) -> bool:
        return True

    def _abandoned(self) -> list[RunRecord]:
        with entered(), self._lock:
            return self._log.runs.overdue()
