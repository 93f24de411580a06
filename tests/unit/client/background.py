"""A function on a thread of its own, and a way to know that it waits for the network."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterable
from typing import Generic, TypeVar

from ssesync import Event

from .raw_server import TIMEOUT

T = TypeVar("T")


class Background(Generic[T]):
    """Runs ``function`` at once; :meth:`result` waits for what it returns or raises."""

    def __init__(self, function: Callable[[], T]) -> None:
        self._function = function
        self._result: list[T] = []
        self._error: BaseException | None = None
        self.thread = threading.Thread(target=self._run, name="test-background", daemon=True)
        self.thread.start()

    def _run(self) -> None:
        try:
            self._result.append(self._function())
        except BaseException as error:
            self._error = error

    def result(self, timeout: float = TIMEOUT / 2) -> T:
        """Less than a server stays silent for, so that only what the test did can have ended the wait."""
        self.thread.join(timeout)
        assert not self.thread.is_alive(), "the thread did not end"
        if self._error is not None:
            raise self._error
        return self._result[0]

    def wait_until_it_reads(self, ready: Callable[[], object] = lambda: True) -> Background[T]:
        """Return once ``ready`` holds and, after that, the thread sits in a read of its socket."""
        end = time.monotonic() + TIMEOUT
        while time.monotonic() < end:
            held = ready()
            frame = sys._current_frames().get(self.thread.ident or 0)
            if held and frame is not None and (frame.f_globals.get("__name__"), frame.f_code.co_name) in _READS:
                return self
            assert self.thread.is_alive(), f"the thread ended early: {self._error!r}"
            time.sleep(0.001)
        raise AssertionError("the thread never came to read")


class Reading(Background[list[Event]]):
    """Reads all events on a thread of its own, and keeps those that were given so far in ``seen``."""

    def __init__(self, reader: Iterable[Event]) -> None:
        self.seen: list[Event] = []
        super().__init__(lambda: [self.seen.append(event) or event for event in reader])  # type: ignore[func-returns-value]

    def wait_for_next(self, count: int) -> Reading:
        """Return once ``count`` events were given and the thread waits for the next."""
        self.wait_until_it_reads(lambda: len(self.seen) >= count)
        return self


# The innermost Python functions of a socket's read; below them is C.
_READS = {("socket", "readinto"), ("ssl", "read")}
