"""A connection that one thread at a time uses, and that any thread may close at any moment."""

from __future__ import annotations

import abc
import contextlib
from collections.abc import Iterator

from ...errors import BrokerUnavailable
from ...locks import is_owned, make_rlock
from ..reentry import carry_out, entered, is_inside

__all__ = ["ExclusiveConnection"]

# Seconds that close() waits for the thread that uses the connection.
_CLOSE_TIMEOUT = 1.0


class ExclusiveConnection(abc.ABC):
    """A connection that is opened at its first use, and used by one thread at a time.

    In a signal handler that has interrupted the use of this connection or another, all methods but :meth:`close` raise
    :class:`ssesync.BrokerBusy`.

    The lock is re-entrant because such a lock knows its owner, from the step that takes it on. A signal handler may
    raise an exception between any two steps: so after a use the lock is released if this thread is its owner, whether
    or not the call that took it has returned. No thread takes it twice.
    """

    def __init__(self) -> None:
        self._lock = make_rlock("channels.connection")
        self._close_requested = False

    @contextlib.contextmanager
    def _exclusively(self, timeout: float) -> Iterator[None]:
        """Take the connection for this thread.

        :param timeout: seconds to wait while other threads use it; -1: without end.
        :raises BrokerUnavailable: other threads used it for longer.
        """
        try:
            with entered():
                try:
                    if not self._lock.acquire(timeout=timeout):
                        raise self._in_use(timeout)
                    yield
                finally:
                    try:
                        self._lock.release()
                    except RuntimeError:
                        pass  # this thread is not the owner
        finally:
            self._close_if_requested()

    def close(self) -> None:
        """Close the connection. The next use opens it again. Any thread, any signal handler, any number of times.

        It waits up to a second for another thread's use; in a signal handler that has interrupted its thread inside a
        broker it does not wait. A connection that is still in use then is closed when that use ends.
        """
        self._close_requested = True
        if is_inside():
            self._close_if_requested()
        else:
            with contextlib.suppress(BrokerUnavailable), self._exclusively(_CLOSE_TIMEOUT):
                pass

    def _close_if_requested(self) -> None:
        # If this thread is the owner, a signal handler has interrupted a use, which calls this at its end.
        if self._close_requested and not is_owned(self._lock):
            carry_out(self._lock, lambda: self._close_requested, self._close_now)

    def _close_now(self) -> None:
        self._close_requested = False
        self._disconnect()

    @abc.abstractmethod
    def _disconnect(self) -> None:
        """Disconnect, and raise no error. Called with the lock held."""

    @abc.abstractmethod
    def _in_use(self, timeout: float) -> BrokerUnavailable:
        """The error for a thread that has waited for ``timeout`` seconds."""
