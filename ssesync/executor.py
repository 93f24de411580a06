"""Threads that may wait, for a loop that may not."""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable

from .locks import make_condition

__all__ = ["Executor", "callers"]

logger = logging.getLogger("ssesync")

Call = Callable[[], object]

# Threads on which users' code is called that no thread of the library may wait for.
_CALLERS = 4


class Executor:
    """Calls, one after the other, on a few threads that start when they are needed. Any thread may ask.

    ``concurrent.futures`` would wait at the interpreter's exit for all that is still to be done, before the exit
    functions: one ``on_close`` that hangs, and no client is told that the process ends. These threads are daemons.

    :param size: threads at most.
    :param name: what they are called.
    """

    def __init__(self, size: int, name: str) -> None:
        self._size = size
        self._name = name
        self._condition = make_condition("server.executor")
        self._calls: deque[Call] = deque()
        self._threads = self._idle = self._busy = 0

    def ask(self, call: Call) -> None:
        """Call as soon as a thread is free. What it raises is logged."""
        with self._condition:
            self._calls.append(call)
            if self._idle >= len(self._calls) or self._threads == self._size:
                self._condition.notify()
                return
            name = f"{self._name}_{self._threads}"
            self._threads += 1
        try:
            threading.Thread(target=self._run, name=name, daemon=True).start()
        except RuntimeError:
            # There can't be another: those that are there have it, or there is none and it is done here.
            with self._condition:
                self._threads -= 1
                left, self._calls = (deque[Call](), self._calls) if self._threads else (self._calls, deque[Call]())
            for each in left:
                logged(each)

    def wait(self, timeout: float) -> None:
        """Wait up to ``timeout`` seconds until all is done."""
        deadline = time.monotonic() + timeout
        with self._condition:
            while (self._calls or self._busy) and (remaining := deadline - time.monotonic()) > 0:
                self._condition.wait(min(remaining, 0.05))

    def _run(self) -> None:
        while True:
            with self._condition:
                self._idle += 1
                while not self._calls:
                    self._condition.wait()
                self._idle -= 1
                self._busy += 1
                call = self._calls.popleft()
            try:
                logged(call)
            except BaseException as error:  # a sys.exit() in on_close, say: it is no end of this thread
                logged(functools.partial(logger.error, "%r in a callback of ssesync is ignored", error))
            del call  # and all that hangs on it, while there is nothing to do
            with self._condition:
                self._busy -= 1


_callers: list[Executor] = []


def callers() -> Executor:
    """This process's threads for users' code: ``on_close`` of detached streams, callbacks of tokens, logging, as far as
    the thread that comes to call them has others to serve.

    A callback that never returns keeps one of them. When all of them are kept no more users' code is called from here;
    clients that leave, stalls, lifetimes and the sending go on.
    """
    if not _callers:
        _callers.append(Executor(_CALLERS, "ssesync-caller"))  # it has no thread yet, and the first one counts
    return _callers[0]


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_callers.clear)


def logged(call: Call) -> None:
    """Call, and log what that raises."""
    try:
        call()
    except Exception:
        with contextlib.suppress(Exception):  # a filter of the log that fails must not end the thread
            logger.exception("the ssesync loop failed at %r", call)
