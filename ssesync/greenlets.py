"""Whether gevent or eventlet has replaced threads, and the functions that its patches hide."""

from __future__ import annotations

import os
import select
import selectors
import sys
import threading
from collections.abc import Callable
from typing import Any

__all__ = ["cooperative_selector", "native_select", "threads_are_greenlets", "wait_readable"]


def threads_are_greenlets() -> bool:
    """Whether gevent or eventlet has replaced threads.

    :return: whether it has. Then the event library watches each descriptor of the server, and a greenlet for each
        stream is cheap.
    """
    for name, what in (("gevent.monkey", "is_module_patched"), ("eventlet.patcher", "is_monkey_patched")):
        module = sys.modules.get(name)
        if module is not None and getattr(module, what)("thread" if "eventlet" in name else "threading"):
            return True
    return False


def native_select(name: str) -> Any:
    """Get an attribute of the module ``select`` as it was before gevent patched it.

    :return: the attribute; ``None`` where this system does not have it.
    """
    if "gevent.monkey" in sys.modules:
        from gevent import monkey

        try:
            return monkey.get_original("select", name)
        except AttributeError:
            return None
    return getattr(select, name, None)


def wait_readable() -> Callable[[int, float | None], None] | None:
    """Get the function with which a greenlet waits for a readable descriptor, up to a timeout.

    :return: the function; ``None`` where gevent has not replaced threads.
    """
    if "gevent.monkey" not in sys.modules:
        return None
    from gevent import monkey, socket

    if not monkey.is_module_patched("threading"):
        return None

    def wait(fd: int, timeout: float | None) -> None:
        try:
            socket.wait_read(fd, timeout=timeout)
        except TimeoutError:
            pass

    return wait


def cooperative_selector() -> selectors.BaseSelector | None:
    """Make the selector for an event loop that a greenlet runs.

    asyncio keeps the running loop by thread, and all greenlets are on one. Other greenlets would find a running loop:
    ``asyncio.run()`` fails then, and so does each query of Django's. They run only while the loop waits, so here the
    loop does not count as running meanwhile.

    :return: the selector; ``None`` where threads are not greenlets.
    """
    if not threads_are_greenlets():
        return None
    from asyncio import _get_running_loop, _set_running_loop

    kind: Any = selectors.DefaultSelector  # gevent and eventlet have replaced it

    class CooperativeSelector(kind):  # type: ignore[misc]
        outer: Any = None
        pid = os.getpid()

        def select(self, timeout: float | None = None) -> Any:
            own = _get_running_loop()
            _set_running_loop(self.outer)
            try:
                return super().select(timeout)
            finally:
                if os.getpid() != self.pid:
                    # A forked child has the greenlet too, and would run its parent's producers once more.
                    threading.Event().wait()
                self.outer = _get_running_loop()
                _set_running_loop(own)

    selector: selectors.BaseSelector = CooperativeSelector()
    return selector
