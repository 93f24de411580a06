"""All locks of this library: how they are made, in which order they are taken, and what is forbidden under one.

Three laws (docs/design.md, "Locks", has the table and the reasons):

1. A thread takes a lock only if each lock that it holds comes earlier in :data:`ORDER`.
2. No foreign code runs while a lock is held: users' functions, callbacks of a ``CancelToken``, logging, waits.
3. ``close()``, ``cancel()`` and ``stop()`` may be called from a signal handler, which may have interrupted code that
   holds a lock, on the same thread. So they take no lock (:class:`Waiters`, :class:`Once`), or a re-entrant one for
   steps that may be interrupted anywhere, or leave the work to the code that holds the lock (:func:`is_owned`).

The locks are the standard library's, at no extra cost. If the environment variable ``SSESYNC_LOCK_CHECK`` names a file
when a lock is made, the lock checks the first two laws and appends violations to that file, see ``lock_check.py``. The
tests run so.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable
from typing import Any

from .lock_order import OF_GARBAGE, ORDER, VARIABLE

__all__ = [
    "OF_GARBAGE",
    "ORDER",
    "VARIABLE",
    "Once",
    "Waiters",
    "foreign",
    "is_owned",
    "make_condition",
    "make_lock",
    "make_rlock",
]


def make_lock(name: str) -> threading.Lock:
    """Make a lock with a name of :data:`ORDER`. A method that needs it held asserts ``self._lock.locked()``."""
    lock = threading.Lock()
    return _checked(name, lock, False) if VARIABLE in os.environ else lock


def make_rlock(name: str) -> threading.RLock:
    """Make a re-entrant lock with a name of :data:`ORDER`. A method that needs it held asserts ``is_owned(lock)``."""
    lock = threading.RLock()
    return _checked(name, lock, True) if VARIABLE in os.environ else lock


def make_condition(name: str) -> threading.Condition:
    """Make a condition with a re-entrant lock. A signal handler may notify its waiters, but a thread that it interrupts
    between its check of the state and its wait misses that. Use :class:`Waiters` if a handler may close the object."""
    return threading.Condition(make_rlock(name))


def is_owned(lock: Any) -> bool:
    """Whether this thread holds a re-entrant lock, or a condition's. Then the caller is the code that took it, or a
    signal handler or destructor that has interrupted that code."""
    return bool(lock._is_owned())  # threading.Condition calls this method of its lock too


def foreign(what: str) -> None:
    """Mark a call of code that is not this library's: the check reports it if this thread holds a lock.

    :param what: the call, for the report.
    """
    if VARIABLE in os.environ:
        from .lock_check import check_foreign

        check_foreign(what)


def _checked(name: str, lock: Any, reentrant: bool) -> Any:
    from .lock_check import CheckedLock, CheckedRLock

    return (CheckedRLock if reentrant else CheckedLock)(name, lock)


class Waiters:
    """The threads that wait for a condition.

    Used in place of ``threading.Condition`` and ``threading.Event`` if a signal handler may wake. A handler that has
    interrupted ``Event.set()`` or ``Event.wait()`` would hang on the event's own lock, and a wake between a thread's
    check of the condition and its wait would be missed. Here each thread first adds a lock of its own to the list that
    :meth:`wake` releases, and then checks; :meth:`wake` is called after the change. So no wake is missed, and no lock
    is taken here that another thread, or an interrupted one, can hold.
    """

    __slots__ = ("_locks",)

    def __init__(self) -> None:
        self._locks: list[Any] = []

    def wake(self) -> None:
        """Make all waiting threads check their condition again. Any thread, any signal handler. Never waits."""
        for _ in range(len(self._locks)):
            try:
                lock = self._locks.pop(0)
            except IndexError:
                return  # another thread wakes them too
            lock.release()

    def wait(self, ready: Callable[[], bool], timeout: float | None = None) -> bool:
        """Wait until a condition holds.

        :param ready: the condition; it takes no lock.
        :param timeout: seconds; ``None``: without a limit.
        :return: whether the condition holds.
        """
        if ready():
            return True
        if timeout is not None and timeout <= 0:
            return False
        foreign("a wait")
        deadline = None if timeout is None else time.monotonic() + timeout
        lock = threading.Lock()
        lock.acquire()
        remaining = -1.0
        try:
            while True:
                self._locks.append(lock)
                if ready():
                    return True
                if deadline is not None:
                    remaining = min(max(0.0, deadline - time.monotonic()), threading.TIMEOUT_MAX)
                if not lock.acquire(timeout=remaining):
                    return ready()
        finally:
            with contextlib.suppress(ValueError):  # wake() has removed it, and releases it without effect
                self._locks.remove(lock)


class Once:
    """Decides which of several calls is the first. Takes no lock."""

    __slots__ = ("_tokens",)

    def __init__(self) -> None:
        self._tokens = [None]

    def __call__(self) -> bool:
        """Whether this call is the first one. Any thread, any signal handler."""
        try:
            self._tokens.pop()
        except IndexError:
            return False
        return True

    @property
    def done(self) -> bool:
        """Whether it was called."""
        return not self._tokens
