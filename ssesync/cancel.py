"""CancelToken: a cancel signal that any thread may set, and that every blocking operation accepts.

It connects the parts of this library without imports: a stream sets its token when its client leaves, and a reader
with this token shuts its connection.
"""

from __future__ import annotations

import functools
import itertools
import logging
from collections.abc import Callable
from typing import NoReturn

from .locks import Waiters, foreign

__all__ = ["CancelToken"]

logger = logging.getLogger("ssesync")

Run = Callable[[Callable[[], object]], object]


class CancelToken:
    """A ``threading.Event`` that also calls back, and keeps the first reason for which it was set.

    Every method may be called from any thread and from a signal handler, any number of times. There is no lock: each
    step changes one list or dictionary by one operation, which no other thread and no handler can interrupt.
    """

    def __init__(self) -> None:
        self._reasons: list[str] = []  # the first one counts
        self._waiters = Waiters()
        self._callbacks: dict[int, tuple[Callable[[], object], bool]] = {}
        self._numbers = itertools.count()

    def __reduce__(self) -> NoReturn:
        raise TypeError("a CancelToken can't be pickled or copied: threads wait for this one")

    @property
    def reason(self) -> str | None:
        """The reason of the first :meth:`set`, ``None`` before that."""
        return self._reasons[0] if self._reasons else None

    def set(self, reason: str = "cancelled") -> None:
        """Set the signal: wake every :meth:`wait`, call every callback once. Later calls do nothing.

        :param reason: why.
        """
        self._set(reason, _directly)

    def is_set(self) -> bool:
        """Whether the signal is set."""
        return bool(self._reasons)

    def wait(self, timeout: float | None = None) -> bool:
        """Wait for the signal.

        :param timeout: seconds; ``None``: without a limit.
        :return: whether the signal is set.
        """
        return self._waiters.wait(self.is_set, timeout)

    def add_callback(self, callback: Callable[[], object]) -> None:
        """Call ``callback`` when the signal is set, on the thread that sets it; at once if it is set already.

        Callbacks of a stream's token are called on a helper thread when the library itself ends the stream (its client
        has left or stalled, its lifetime is over, the process stops).

        :param callback: must be quick and must not block. An exception is logged.
        """
        self._add(callback, own=False)

    def remove_callback(self, callback: Callable[[], object]) -> None:
        """Remove a callback. No error if it is not registered, or was called already.

        :param callback: the callback.
        """
        for number, (known, _) in self._callbacks.copy().items():
            if known == callback and self._callbacks.pop(number, None) is not None:
                return

    def _add(self, callback: Callable[[], object], *, own: bool) -> None:
        """Add a callback.

        :param own: it is this library's, does not block and calls no user code. The thread that sets the signal always
            calls such a callback itself.
        """
        number = next(self._numbers)
        self._callbacks[number] = callback, own
        # In this order: another thread, or a signal handler, may set the signal in between.
        if self._reasons:
            self._call(number, _directly)

    def _set(self, reason: str, run: Run) -> None:
        """Set the signal.

        :param run: calls the callbacks that are not this library's.
        """
        if not self._reasons:
            self._reasons.append(reason)
        # Also if it was set before: an exception of a signal handler may have ended that call here.
        self._waiters.wake()
        for number in self._callbacks.copy():
            self._call(number, run)

    def _call(self, number: int, run: Run) -> None:
        callback, own = self._callbacks.pop(number, (None, True))
        if callback is not None:
            (_directly if own else run)(functools.partial(_logged, callback, own))


def _directly(call: Callable[[], object]) -> None:
    call()


def _logged(callback: Callable[[], object], own: bool) -> None:
    if not own:
        foreign("a callback of a CancelToken")
    try:
        callback()
    except Exception:
        logger.exception("a cancel callback failed: %r", callback)
