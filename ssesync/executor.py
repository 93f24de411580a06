"""Executor: threads for calls that may wait, submitted by threads that must not wait."""

from __future__ import annotations

import contextlib
import logging
import os
import queue
import threading
from collections.abc import Callable

from .locks import Waiters

__all__ = ["Executor", "callers", "logged"]

logger = logging.getLogger("ssesync")

Call = Callable[[], object]

# Threads for users' code, as no thread of the library may wait for it.
_CALLERS = 4


class Executor:
    """Runs calls in their order on a few daemon threads, which start when they are needed. Any thread may submit calls.

    ``concurrent.futures`` would wait for all pending calls at the interpreter's exit, before the exit functions run.
    Because of one ``on_close`` that hangs, no client would be sent the end of its stream.

    :param size: threads at most.
    :param name: the prefix of the threads' names.
    """

    def __init__(self, size: int, name: str) -> None:
        self._size = size
        self._names = [f"{name}_{number}" for number in reversed(range(size))]  # of the threads that are not started
        self._calls: queue.SimpleQueue[tuple[object, Call]] = queue.SimpleQueue()
        self._unfinished: dict[object, None] = {}
        self._finished = Waiters()

    def submit(self, call: Call) -> None:
        """Call as soon as a thread is free. An exception is logged."""
        token = object()
        self._unfinished[token] = None
        self._calls.put((token, call))
        if len(self._unfinished) > self._size - len(self._names):
            self._start_thread()

    @property
    def is_idle(self) -> bool:
        """Whether all calls were made."""
        return not self._unfinished

    def wait(self, timeout: float) -> None:
        """Wait up to ``timeout`` seconds until all calls were made."""
        self._finished.wait(lambda: self.is_idle, timeout)

    def _start_thread(self) -> None:
        try:
            name = self._names.pop()
        except IndexError:
            return  # all of them run
        try:
            threading.Thread(target=self._run, name=name, daemon=True).start()
        except RuntimeError:
            # No more threads can be started. The running ones make the calls; if there are none, this thread does.
            self._names.append(name)
            if len(self._names) == self._size:
                with contextlib.suppress(queue.Empty):
                    while True:
                        self._perform(*self._calls.get_nowait())

    def _run(self) -> None:
        while True:
            self._perform(*self._calls.get())

    def _perform(self, token: object, call: Call) -> None:
        try:
            logged(call)
        except BaseException as error:  # sys.exit() in on_close, for example, does not end this thread
            with contextlib.suppress(Exception):
                logger.error("%r in a callback of ssesync is ignored", error)
        del self._unfinished[token]
        self._finished.wake()


_callers: list[Executor] = []


def callers() -> Executor:
    """Get this process's executor for users' code and logging: ``on_close`` of detached streams, callbacks of tokens.
    The reactor's thread calls none of these itself, as it has other streams to serve.

    A callback that never returns blocks one thread. When all threads are blocked, no more users' code is called here.
    Sending, stalls, lifetimes and clients that leave do not depend on these threads.

    :return: the executor.
    """
    if not _callers:
        _callers.append(Executor(_CALLERS, "ssesync-caller"))  # no thread is started yet; the first executor counts
    return _callers[0]


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_callers.clear)


def logged(call: Call) -> None:
    """Call, and log an exception."""
    try:
        call()
    except Exception:
        with contextlib.suppress(Exception):  # a logging filter that fails must not end the thread
            logger.exception("a call of ssesync failed: %r", call)
