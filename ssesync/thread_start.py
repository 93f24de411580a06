"""The start of a thread of which the process has one: the reactor's, and that of the event loop."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from .locks import Once, Waiters
from .text import escape

__all__ = ["ThreadStart"]

logger = logging.getLogger("ssesync")


class ThreadStart:
    """Starts a daemon thread once. It has no lock, as gunicorn's hooks are imported before gevent's patch, so the lock
    could be an unpatched one. Other greenlets run while a thread starts; a greenlet that waits for an unpatched lock
    would block all of them.

    :param run: the thread's function.
    :param name: what the thread runs.
    :param consequence: what follows if it can't be started, for the log.
    """

    def __init__(self, run: Callable[[], object], name: str, consequence: str) -> None:
        self._run = run
        self._name = name
        self._consequence = consequence
        self._attempt = Once()
        self._ended = Waiters()  # for the end of an attempt
        self._started = False
        self._once = Once()
        self._warned = Once()

    def __call__(self) -> None:
        """Start the thread. Any number of times: if no thread can be started now, a later call tries again."""
        if self._started or not self._attempt():
            return
        try:
            threading.Thread(target=self._run_once, name=f"ssesync-{self._name}", daemon=True).start()
            self._started = True
        except RuntimeError as error:
            if self._warned():
                logger.warning(
                    "no thread can be started for the %s, so %s: %s",
                    escape(self._name), escape(self._consequence), escape(error),
                )  # fmt: skip
        finally:
            if not self._started:
                self._attempt = Once()
            self._ended.wake()

    def require(self) -> None:
        """Start the thread, and wait until it runs.

        :raises RuntimeError: no other thread can be started now.
        """
        if self._started:
            return
        attempt = self._attempt
        self()
        self._ended.wait(lambda: self._started or self._attempt is not attempt)
        if not self._started:
            raise RuntimeError(f"no thread can be started for the {self._name}")

    def _run_once(self) -> None:
        # The SystemExit of a worker's timeout may have interrupted an attempt after its thread was started: then the
        # next attempt starts another one.
        if self._once():
            self._started = True
            self._ended.wake()
            self._run()
