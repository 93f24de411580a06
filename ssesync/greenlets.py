"""Whether gevent or eventlet has replaced threads, and the functions that its patches hide."""

from __future__ import annotations

import select
import sys
from collections.abc import Callable
from typing import Any

__all__ = ["native_select", "threads_are_greenlets", "wait_readable"]


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
