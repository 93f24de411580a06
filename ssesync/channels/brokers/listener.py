"""The thread of a process that passes other processes' events to the dispatcher."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable

from ...retry import FailureLog
from ..reentry import Wakeup, is_inside

__all__ = ["Listener"]

# Seconds between attempts while the log can't be reached, the first and the longest.
_RETRY = (0.1, 5.0)
# Seconds that stop() waits for the thread.
_JOIN_TIMEOUT = 5.0


class Listener:
    """Calls ``step`` again and again, on a thread of its own, until it is stopped. A step that fails is repeated.

    :param step: called with the listener: waits for new events and delivers them. It waits with :meth:`wait`, or for a
        second at most.
    :param name: its name in log lines.
    """

    def __init__(self, step: Callable[[Listener], None], name: str) -> None:
        self._step = step
        self._failures = FailureLog(f"{name}: the listener", *_RETRY)
        self._woken = Wakeup()
        self._thread: threading.Thread | None = None
        #: Whether it was asked to stop.
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
        """Wait to be woken.

        :param timeout: seconds.
        :return: whether it was woken.
        """
        woken = self._woken.wait(timeout)
        if woken:
            self._woken.clear()
        return woken

    def stop(self) -> None:
        """End the thread, and wait up to 5 seconds for it.

        It does not wait on that thread itself, nor in a signal handler that has interrupted its thread inside a broker:
        the listener may need a lock that the interrupted thread holds.
        """
        self.stopping = True
        self.wake()
        thread = self._thread
        if thread is not None and thread is not threading.current_thread() and not is_inside():
            with contextlib.suppress(RuntimeError):  # another thread is just starting it
                thread.join(_JOIN_TIMEOUT)

    def _run(self) -> None:
        while not self.stopping:
            try:
                self._step(self)
            except Exception as error:  # noqa: PERF203 - a step is no small thing
                if self.stopping:
                    return
                self.wait(self._failures.failed(error))
            else:
                self._failures.succeeded()
