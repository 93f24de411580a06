"""Something that is started once, by the first of the threads that need it; the others wait until it is."""

from __future__ import annotations

import threading
from collections.abc import Callable

from ..errors import BrokerBusy
from .reentry import Wakeup, entered

__all__ = ["SharedStart"]


class _Attempt:
    """One thread's attempt to start it, for which the others wait."""

    def __init__(self) -> None:
        self.thread = threading.get_ident()
        self.over = Wakeup()


class SharedStart:
    """Whether a broker listens, and the start of that.

    :param lock: held for single steps only, and not while it is started, as that may wait for a server.
    :param start: starts it.
    :param check: raises the error that the caller is to see where it is not to be started.
    """

    def __init__(self, lock: threading.Lock, start: Callable[[], object], check: Callable[[], object]) -> None:
        self._lock = lock
        self._start = start
        self._check = check
        self._attempt: _Attempt | None = None
        self._started: list[bool] = []  # True, while it is: removed by the call that ends that

    def __bool__(self) -> bool:
        return bool(self._started)

    def end(self) -> bool:
        """Note that it is to be ended. Any thread, any signal handler.

        :return: whether it was started, and this call is the one that has to end it.
        """
        try:
            return self._started.pop()
        except IndexError:
            return False

    def ensure(self) -> None:
        """Start it, or wait for the thread that does.

        :raises BrokerBusy: this thread does, and was interrupted by a signal handler.
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
