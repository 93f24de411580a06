"""SharedStart: the first of several threads starts something; the others wait until it is started."""

from __future__ import annotations

import threading
from collections.abc import Callable

from ..errors import BrokerBusy
from .reentry import Wakeup, entered

__all__ = ["SharedStart"]


class _Attempt:
    """One thread's attempt to start; the other threads wait for its end."""

    def __init__(self) -> None:
        self.thread = threading.get_ident()
        self.over = Wakeup()


class SharedStart:
    """A start that several threads share, for example that of a broker's listener. True while started.

    :param lock: held for single steps only, and not during ``start``, which may wait for a server.
    :param start: starts the listener.
    :param check: called before each start; raises if the listener must not be started.
    """

    def __init__(self, lock: threading.Lock, start: Callable[[], object], check: Callable[[], object]) -> None:
        self._lock = lock
        self._start = start
        self._check = check
        self._attempt: _Attempt | None = None
        self._started: list[bool] = []  # one True while started: end() removes it, in one step of the interpreter

    def __bool__(self) -> bool:
        return bool(self._started)

    def end(self) -> bool:
        """Mark it as not started. Any thread, any signal handler.

        :return: whether it was started; then the caller, and no other, has to undo the start.
        """
        try:
            return self._started.pop()
        except IndexError:
            return False

    def ensure(self) -> None:
        """Start, or wait for the thread that starts.

        :raises BrokerBusy: called by a signal handler that has interrupted this thread's own start.
        """
        own = _Attempt()
        try:
            while self._attempt is not own:
                with entered(), self._lock:
                    self._check()
                    if self._started:
                        return
                    attempt = self._attempt = self._attempt or own
                if attempt is not own:
                    if attempt.thread == own.thread:
                        raise BrokerBusy("a signal handler can't subscribe while its thread starts to listen")
                    attempt.over.wait()
            self._start()
            self._started.append(True)
        finally:
            if self._attempt is own:
                self._attempt = None
            own.over.set()
