"""The event loop of this process's asynchronous producers: one thread runs all of them.

The thread starts with the first such stream. A forked child has a loop of its own: its parent's belongs to a thread
that the child does not have. Where gevent has replaced threads a greenlet runs the loop, and other greenlets run while
it waits.

asyncio is imported with the first loop, which takes some 60 ms: most processes need none.
"""

from __future__ import annotations

import atexit
import contextlib
import contextvars
import functools
import inspect
import logging
import os
import sys
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from ..errors import CloseReason
from ..executor import callers
from ..greenlets import cooperative_selector
from ..locks import Once, Waiters
from ..reactor import reactor_if_any
from ..text import escape
from ..thread_start import ThreadStart

if TYPE_CHECKING:
    import asyncio

__all__ = ["EventLoop", "end_at_exit", "event_loop"]

logger = logging.getLogger("ssesync")

# Seconds that the interpreter's exit waits for producers that close what they have open.
_EXIT_SECONDS = 2.0
# Seconds without a turn of the loop that are worth a warning.
_BLOCKED = 1.0
_ASYNCHRONOUS = inspect.CO_COROUTINE | inspect.CO_ASYNC_GENERATOR


class Running(Protocol):
    """A producer that the loop runs."""

    def cancel(self, reason: CloseReason | str) -> None:
        """End it at once."""


class EventLoop:
    """See the module. Its methods may be called from any thread and any signal handler."""

    def __init__(self) -> None:
        import asyncio

        selector = cooperative_selector()
        #: The loop itself.
        self.loop: asyncio.AbstractEventLoop = (
            asyncio.new_event_loop() if selector is None else asyncio.SelectorEventLoop(selector)
        )
        self._start = ThreadStart(self._run, "event-loop", "streams of asynchronous producers are refused")
        self._running: dict[Running, None] = {}
        self._changed = Waiters()  # for the end of a producer, and of the thread
        self._stops = self._over = False
        self._ident = 0
        self._last_turn = 0.0
        self._is_checked = False  # whether the next turn is to be noted
        self._warned = Once()

    def require_thread(self) -> None:
        """Start the thread, and wait until it runs.

        :raises RuntimeError: no other thread can be started now.
        """
        self._start.require()

    def call_soon(self, call: Callable[[], object], context: contextvars.Context | None = None) -> None:
        """Call on the loop's thread. Without an effect when the loop is closed.

        :param call: the function.
        :param context: the context of the call; ``None``: that of the caller.
        """
        if not self._over:
            with contextlib.suppress(RuntimeError):  # the process exits
                self.loop.call_soon_threadsafe(call, context=context)

    def add(self, producer: Running) -> None:
        """Note a producer that runs, until :meth:`remove`."""
        self._running[producer] = None
        if (current := reactor_if_any()) is not None:
            current.every_tick(self._check)

    def remove(self, producer: Running) -> None:
        """Note the end of a producer. Any number of times."""
        if self._running.pop(producer, self) is None:
            self._changed.wake()

    def end(self, timeout: float) -> None:
        """Cancel all producers, and end the thread when they have closed what they have open.

        :param timeout: seconds to wait for them.
        """
        deadline = time.monotonic() + timeout
        for producer in list(self._running):
            producer.cancel(CloseReason.SHUTDOWN)
        self._changed.wait(lambda: not self._running, timeout)
        self._stops = True
        self.call_soon(self.loop.stop)
        self._changed.wait(lambda: self._over, max(0.0, deadline - time.monotonic()))

    def abandon(self) -> None:
        """Do nothing any more: in a forked child, whose parent has the thread. The loop is not closed, as that would
        change the set of descriptors that the two processes share."""
        self._over = True

    def close(self) -> None:
        """Close a loop whose thread was not started."""
        self.loop.close()

    def _check(self) -> bool:
        """Warn, once, if a producer blocks the loop. On the reactor's thread."""
        now = time.monotonic()
        if not self._is_checked:
            self._is_checked, self._last_turn = True, now
            self.call_soon(self._note_turn)
        elif now - self._last_turn > _BLOCKED and self._warned():
            callers().submit(functools.partial(self._warn, now - self._last_turn))
        return bool(self._running) and not self._over

    def _note_turn(self) -> None:
        self._is_checked = False

    def _warn(self, seconds: float) -> None:
        frame = sys._current_frames().get(self._ident)
        while frame is not None and not frame.f_code.co_flags & _ASYNCHRONOUS:
            frame = frame.f_back  # what it has called
        where = "" if frame is None else f", now at {frame.f_code.co_filename}:{frame.f_lineno}"
        logger.warning(
            "a producer has blocked the event loop for %.1f s%s, and %d asynchronous producers wait: let it call what "
            "waits or computes by asyncio.to_thread()",
            seconds, escape(where), len(self._running),
        )  # fmt: skip

    def _run(self) -> None:
        self._ident = threading.get_ident()
        while not self._stops:
            self._run_until_stopped()
        with contextlib.suppress(Exception):
            self.loop.run_until_complete(self.loop.shutdown_asyncgens())
            self.loop.close()
        self._over = True
        self._changed.wake()

    def _run_until_stopped(self) -> None:
        try:
            self.loop.run_forever()
        except BaseException as error:  # sys.exit() in a task that a producer has made, for example
            text = repr(error)
            callers().submit(lambda: logger.error("%s in a task of the event loop is ignored", escape(text)))
            time.sleep(0.01)  # it may be a failure of the loop itself, which comes again at once


_current: dict[None, EventLoop] = {}
_inherited: list[EventLoop] = []  # else the garbage collector would close them, see abandon()


def event_loop() -> EventLoop:
    """Get this process's event loop, which the first call starts. A forked child gets its own.

    :raises OSError: there are no more descriptors.
    :raises RuntimeError: no more threads can be started.
    """
    current = _current.get(None)
    if current is None:
        # No lock: the first loop counts.
        made = EventLoop()
        current = _current.setdefault(None, made)
        if current is not made:
            made.close()
    current.require_thread()
    return current


def _at_exit() -> None:
    if (current := _current.get(None)) is not None:
        current.end(_EXIT_SECONDS)


def _after_fork() -> None:
    if (current := _current.pop(None, None)) is not None:
        current.abandon()
        _inherited.append(current)


def end_at_exit() -> None:
    """Have the interpreter's exit end the loop. Called when the package is imported: exit functions are called in
    reverse, so this one comes after those that end the streams, and their producers with them."""
    atexit.register(_at_exit)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
