"""Every lock of this library: where it is made, the order in which locks are taken, and what must not happen under one.

Three laws (docs/design.md, "Locks", has the table and the reasons):

1. A thread takes a lock only while each lock that it holds stands before it in :data:`ORDER`.
2. No foreign code runs while a lock is held: users' functions, callbacks of a ``CancelToken``, logging, waits.
3. ``close()``, ``cancel()`` and ``stop()`` may be called from a signal handler, which may have interrupted code that
   holds a lock, on the same thread. So what they need takes no lock (:class:`Waiters`, :class:`Once`), or takes a
   re-entrant one only for steps that may be interrupted anywhere, or is left to the thread that holds it
   (:func:`is_owned`).

The locks are the standard library's, without any cost. Where the environment variable ``SSESYNC_LOCK_CHECK`` names a
file when a lock is made, it is one that checks the first two laws and appends violations to that file, see
``lock_check.py``: that is how the tests run.
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
    """A lock with a name of :data:`ORDER`. Assert in a method that needs it: ``assert self._lock.locked()``."""
    lock = threading.Lock()
    return _checked(name, lock, False) if VARIABLE in os.environ else lock


def make_rlock(name: str) -> threading.RLock:
    """A re-entrant lock with a name of :data:`ORDER`. Assert in a method that needs it: ``assert is_owned(lock)``."""
    lock = threading.RLock()
    return _checked(name, lock, True) if VARIABLE in os.environ else lock


def make_condition(name: str) -> threading.Condition:
    """A condition with a re-entrant lock. A signal handler may notify those that wait, but a thread that it interrupts
    between its check of the state and its wait misses that: where handlers close, use :class:`Waiters`."""
    return threading.Condition(make_rlock(name))


def is_owned(lock: Any) -> bool:
    """Whether this thread holds a re-entrant lock or a condition's: then it is in a signal handler or a destructor that
    has interrupted the code which does, or was called by that code."""
    return bool(lock._is_owned())  # what threading.Condition asks of every lock that it is given


def foreign(what: str) -> None:
    """Stands before each call of code that is not this library's; the check reports it where a lock is held."""
    if VARIABLE in os.environ:
        from .lock_check import check_foreign

        check_foreign(what)


def _checked(name: str, lock: Any, reentrant: bool) -> Any:
    from .lock_check import CheckedLock, CheckedRLock

    return (CheckedRLock if reentrant else CheckedLock)(name, lock)


class Waiters:
    """The threads that wait for something to become so.

    In place of ``threading.Condition`` and ``threading.Event`` where a signal handler may wake: a handler that runs on
    a thread which is inside of ``Event.set()`` or ``Event.wait()`` hangs on the event's own lock, and one that runs
    between a thread's check of a condition and its wait is missed. Here each thread puts its own lock where
    :meth:`wake` finds it, and checks after that; :meth:`wake` is called after the change. So no order of the two loses
    one, and neither takes a lock that another thread, or an interrupted one, can hold.
    """

    __slots__ = ("_locks",)

    def __init__(self) -> None:
        self._locks: list[Any] = []

    def wake(self) -> None:
        """Have all waiting threads check their condition again. Any thread, any signal handler; never waits."""
        for _ in range(len(self._locks)):
            try:
                lock = self._locks.pop(0)
            except IndexError:
                return  # another thread wakes them too
            lock.release()

    def wait(self, ready: Callable[[], bool], timeout: float | None = None) -> bool:
        """Wait up to ``timeout`` seconds (``None``: without end) until ``ready()``, which takes no lock; whether so."""
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
            with contextlib.suppress(ValueError):  # wake() has taken it out, and wakes nobody by it
                self._locks.remove(lock)


class Once:
    """A step that only the first caller may do. Takes no lock."""

    __slots__ = ("_left",)

    def __init__(self) -> None:
        self._left = [None]

    def __call__(self) -> bool:
        """Whether this call is the first one. Any thread, any signal handler."""
        try:
            self._left.pop()
        except IndexError:
            return False
        return True

    @property
    def done(self) -> bool:
        """Whether there was a call."""
        return not self._left
