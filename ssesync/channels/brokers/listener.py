"""The one thread of a process that brings what other processes publish to its dispatcher."""

from __future__ import annotations

import contextlib
import logging
import random
import threading
from collections.abc import Callable

from ...errors import BrokerError
from ...text import escape
from ..reentry import Wakeup, is_inside

__all__ = ["Listener"]

logger = logging.getLogger("ssesync")

# Seconds between attempts, doubled from the one to the other, while the log can't be reached.
_SOONEST, _LATEST = 0.1, 5.0


class Listener:
    """Calls ``step`` again and again, on a thread of its own, until it is told to stop. A step that fails is repeated.

    :param step: waits for something to do and does it. Waits with :meth:`wait`, or for a second at most.
    :param name: what the log lines call it.
    """

    def __init__(self, step: Callable[[Listener], None], name: str) -> None:
        self._step = step
        self._name = name
        self._woken = Wakeup()
        self._thread: threading.Thread | None = None
        #: Whether it is to stop.
        self.stopping = False

    def start(self) -> None:
        """Start the thread. Does nothing if it was started."""
        if self._thread is not None and self._thread.is_alive():
            return
        self._thread = threading.Thread(target=self._run, name="ssesync-listener", daemon=True)
        self._thread.start()

    def wake(self) -> None:
        """End a :meth:`wait` now, or the next one. Any thread, any signal handler."""
        self._woken.set()

    def wait(self, timeout: float) -> bool:
        """Wait up to ``timeout`` seconds to be woken; whether it was."""
        woken = self._woken.wait(timeout)
        if woken:
            self._woken.clear()
        return woken

    def stop(self) -> None:
        """End the thread, and wait up to 5 seconds for it.

        Not on that thread itself, nor where a signal handler has interrupted its thread inside a broker: there the
        listener may need a lock that the interrupted thread holds.
        """
        self.stopping = True
        self.wake()
        thread = self._thread
        if thread is not None and thread is not threading.current_thread() and not is_inside():
            with contextlib.suppress(RuntimeError):  # it is just being started
                thread.join(5)

    def _run(self) -> None:
        delay = 0.0
        while not self.stopping:
            try:
                self._step(self)
            except Exception as error:  # noqa: PERF203 - a step is no small thing
                if self.stopping:
                    return
                if not delay and isinstance(error, BrokerError):
                    logger.warning("%s: %s; trying again until it works", escape(self._name), escape(error))
                elif not delay:
                    logger.exception("%s: the listener failed; trying again until it works", escape(self._name))
                delay = min(max(2 * delay, _SOONEST), _LATEST)
                self.wait(delay * random.uniform(0.5, 1))
            else:
                if delay:
                    delay = 0.0
                    logger.warning("%s: it works again", escape(self._name))
