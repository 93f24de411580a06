"""A connection that one thread at a time uses, and that may be closed at any moment."""

from __future__ import annotations

import abc
import contextlib
import threading
from collections.abc import Iterator

from ...errors import BrokerUnavailable
from ...locks import make_lock
from ..reentry import entered, entered_or_inside, is_inside

__all__ = ["ExclusiveConnection"]

# Seconds that close() waits for the thread that uses the connection.
_CLOSE_TIMEOUT = 1.0


class ExclusiveConnection(abc.ABC):
    """Opened when it is first used, and used by one thread at a time.

    On a thread that was interrupted while it used this one or another, all but :meth:`close` raise
    :class:`ssesync.BrokerBusy`.
    """

    def __init__(self) -> None:
        self._lock = make_lock("channels.connection")
        self._user: int | None = None  # the thread that uses it
        self._close_requested = False

    @contextlib.contextmanager
    def _exclusively(self, timeout: float) -> Iterator[None]:
        """Use it.

        :param timeout: seconds to wait while other threads do; -1: without end.
        :raises BrokerUnavailable: they still do.
        """
        try:
            with entered():
                if not self._lock.acquire(timeout=timeout):
                    raise self._in_use(timeout)
                try:
                    self._user = threading.get_ident()
                    yield
                finally:
                    self._user = None
                    self._lock.release()
        finally:
            self._close_if_requested()

    def close(self) -> None:
        """Close the connection. The next use opens it again. Any thread, any signal handler, any number of times.

        It waits up to a second for another thread's use. A signal handler that has interrupted its thread inside a
        broker waits for nothing. A connection that is still in use is closed after that.
        """
        self._close_requested = True
        if not is_inside():
            with entered():
                if self._lock.acquire(timeout=_CLOSE_TIMEOUT):
                    self._lock.release()
        self._close_if_requested()

    def _close_if_requested(self) -> None:
        with entered_or_inside():
            while self._close_requested and self._lock.acquire(blocking=False):
                try:
                    self._close_requested = False
                    self._disconnect()
                finally:
                    self._lock.release()

    @abc.abstractmethod
    def _disconnect(self) -> None:
        """Close what is open, without an error. The lock is held."""

    @abc.abstractmethod
    def _in_use(self, timeout: float) -> BrokerUnavailable:
        """The error for a thread that has waited in vain."""
