"""Locks that check the laws of ``locks.py``. Loaded only if ``SSESYNC_LOCK_CHECK`` is set.

Violations are appended to the file that the variable names, and nothing is raised: the code under test continues, in
this process and in its child processes. The process that has set the variable reads the file at the end.
"""

from __future__ import annotations

import gc
import logging
import os
import sys
import threading
import traceback
from collections.abc import Callable
from typing import Any

from .lock_order import OF_GARBAGE, ORDER, VARIABLE

__all__ = ["CheckedLock", "CheckedRLock", "check_foreign", "edges"]

_RANKS = {name: rank for rank, name in enumerate(ORDER)}
# The locks that each thread holds, by its identifier: under gevent the greenlet's, in any order of imports.
_held: dict[int, list[CheckedLock]] = {}
_reported: set[str] = set()
# The threads that are collecting garbage.
_collecting: set[int] = set()

#: Every pair of names of which the second lock was taken while the first was held, in this process.
edges: set[tuple[str, str]] = set()


def check_foreign(what: str) -> None:
    """Report a call of foreign code if this thread holds a lock of this library."""
    held = _held.get(threading.get_ident())
    if held:
        _report(f"foreign code under {_names(held)}: {what}")


class CheckedLock:
    """A lock that checks the order in which it is taken."""

    def __init__(self, name: str, lock: Any) -> None:
        if name not in _RANKS:
            raise ValueError(f"the lock {name!r} is not in ssesync.locks.ORDER: add it where it may be taken")
        self.name = name
        self._lock = lock

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        """As the lock's own."""
        me = threading.get_ident()
        if blocking and (held := _held.get(me)) and not (me in _collecting and self.name in OF_GARBAGE):
            self._check_order(held, bounded=timeout >= 0)
        got: bool = self._lock.acquire(blocking, timeout)
        if got:
            _held.setdefault(me, []).append(self)
        return got

    def release(self) -> None:
        """As the lock's own."""
        self._forget()
        self._lock.release()

    def locked(self) -> bool:
        """As the lock's own."""
        return bool(self._lock.locked())

    def __enter__(self) -> bool:
        return self.acquire()

    def __exit__(self, *_: object) -> None:
        self.release()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name} of {self._lock!r}>"

    def _forget(self) -> None:
        me = threading.get_ident()
        held = _held.get(me, [])
        if held and held[-1] is self:  # nearly always
            held.pop()
            if not held:
                _held.pop(me, None)
            return
        if self not in held:
            # A plain lock may be released by another thread than its owner's.
            held = next((each for each in list(_held.values()) if self in each), [])
        for index in reversed(range(len(held))):
            if held[index] is self:
                del held[index]
                break
        if not held:
            _held.pop(me, None)

    def _check_order(self, held: list[CheckedLock], *, bounded: bool) -> None:
        for other in held:
            edges.add((other.name, self.name))
            if other.name == self.name and bounded:
                continue  # before a fork a thread tries to take all of them, for a bounded time
            if _RANKS[other.name] >= _RANKS[self.name]:
                _report(f"{self.name} is taken while {_names(held)} is held, against the order of the locks")
                return


class CheckedRLock(CheckedLock):
    """A re-entrant lock that checks its order. ``threading.Condition`` calls the methods with an underscore."""

    def _check_order(self, held: list[CheckedLock], *, bounded: bool) -> None:
        if self not in held:
            super()._check_order(held, bounded=bounded)

    def release(self) -> None:
        """As the lock's own."""
        if not self._is_owned():
            raise RuntimeError("cannot release un-acquired lock")
        super().release()

    def locked(self) -> bool:
        """Whether any thread holds it."""
        return any(self in held for held in list(_held.values()))

    def _is_owned(self) -> bool:
        return bool(self._lock._is_owned())

    def _release_save(self) -> Any:
        held = _held.get(threading.get_ident(), [])
        count = held.count(self)
        for _ in range(count):
            self._forget()
        left = _held.get(threading.get_ident())
        if left:
            _report(f"foreign code under {_names(left)}: a wait on {self.name}")
        return count, self._lock._release_save()

    def _acquire_restore(self, saved: Any) -> None:
        count, state = saved
        self._lock._acquire_restore(state)
        _held.setdefault(threading.get_ident(), []).extend([self] * count)


def _names(held: list[CheckedLock]) -> str:
    return " > ".join(dict.fromkeys(lock.name for lock in held))


def _report(what: str) -> None:
    stack = traceback.format_stack(sys._getframe(1))
    text = f"{what} (pid {os.getpid()}, {threading.current_thread().name})\n{''.join(stack[-12:])}\n"
    key = what + "".join(line.split("\n")[0] for line in stack[-4:])
    path = os.environ.get(VARIABLE)
    if key in _reported or not path:
        return
    _reported.add(key)
    # One write to a file that all processes append to, below any layer that could log or lock.
    file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(file, text.encode("utf-8", "replace"))
    finally:
        os.close(file)


def _watch_logging() -> None:
    """Check calls of logging handlers: they are foreign code, whichever library logs. This library's records are
    checked at any level."""
    handle: Callable[..., None] = logging.Logger.handle
    is_enabled = logging.Logger.isEnabledFor

    def checked_handle(self: logging.Logger, record: logging.LogRecord) -> None:
        check_foreign(f"logging to {self.name}: {record.msg!r}")
        handle(self, record)

    def checked_is_enabled(self: logging.Logger, level: int) -> bool:
        if self.name == "ssesync":
            check_foreign("logging to ssesync")
        return is_enabled(self, level)

    logging.Logger.handle = checked_handle  # type: ignore[method-assign]
    logging.Logger.isEnabledFor = checked_is_enabled  # type: ignore[method-assign]


def _note_collection(phase: str, _: object) -> None:
    (_collecting.add if phase == "start" else _collecting.discard)(threading.get_ident())


_watch_logging()
gc.callbacks.append(_note_collection)

if hasattr(os, "register_at_fork"):
    # A child has only the thread that forked, and the locks that it held for the fork are made anew.
    os.register_at_fork(after_in_child=_held.clear)
