"""CancelToken: one "stop" that any thread may give and anything blocking can listen to.

It is the contract between the rooms: a stream whose client leaves sets its token, a reader that
was given the token shuts its connection. Neither knows the other.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

__all__ = ["CancelToken"]

logger = logging.getLogger("ssesync")


class CancelToken:
    """A ``threading.Event`` that also calls back, and keeps the reason it was first given.

    Every method may be called from any thread, any number of times.
    """

    def __init__(self) -> None:
        self._event = threading.Event()
        # A signal handler may set the token while its own thread is in here.
        self._lock = threading.RLock()
        self._callbacks: list[Callable[[], object]] = []
        self._reason: str | None = None

    @property
    def reason(self) -> str | None:
        """What :meth:`set` was first called with, ``None`` before that."""
        return self._reason

    def set(self, reason: str = "cancelled") -> None:
        """Give the signal: wake every :meth:`wait`, call every callback once. Later calls do nothing."""
        with self._lock:
            if self._event.is_set():
                return
            self._reason = reason
            self._event.set()
            callbacks, self._callbacks = self._callbacks, []
        for callback in callbacks:
            self._call(callback)

    def is_set(self) -> bool:
        """Whether the signal was given."""
        return self._event.is_set()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait up to ``timeout`` seconds (``None``: without end) for the signal; whether it was given."""
        return self._event.wait(timeout)

    def add_callback(self, callback: Callable[[], object]) -> None:
        """Call ``callback`` on the signal, on the thread that gives it; at once if it was given already.

        A callback must be quick and must not block. What it raises is logged and goes no further.
        """
        with self._lock:
            # In this order: a signal handler may set the token in between.
            self._callbacks.append(callback)
            if not self._event.is_set() or callback not in self._callbacks:
                return
            self._callbacks.remove(callback)
        self._call(callback)

    def remove_callback(self, callback: Callable[[], object]) -> None:
        """Take a callback back. Not an error if it is not there, or was called already."""
        with self._lock:
            if callback in self._callbacks:
                self._callbacks.remove(callback)

    @staticmethod
    def _call(callback: Callable[[], object]) -> None:
        try:
            callback()
        except Exception:
            logger.exception("a cancel callback failed: %r", callback)
