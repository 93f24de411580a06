"""Adapters for ``cancel=``: register a callback with a token, a stream or a ``threading.Event``."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable
from typing import Any

from ..cancel import CancelToken

__all__ = ["link", "signal_of", "weakly"]

# Seconds between two checks of an event that can't call back.
_POLL_SECONDS = 0.1


def link(cancel: Any, callback: Callable[[], object]) -> Callable[[], None]:
    """Call a callback when ``cancel`` is set.

    :param cancel: a :class:`CancelToken`, an object that has one as ``cancelled``, or a ``threading.Event``.
    :param callback: one of this library's, which never blocks: the thread that sets the signal calls it.
    :return: a function that removes the callback.
    :raises TypeError: ``cancel`` is none of these.
    """
    signal = signal_of(cancel)
    if isinstance(signal, CancelToken):
        signal._add(callback, own=True)
        return lambda: signal.remove_callback(callback)
    if signal.is_set():
        callback()
        return lambda: None
    done: list[None] = []  # not a threading.Event, which a signal handler must not set

    def watch() -> None:
        while not done:
            if signal.wait(_POLL_SECONDS):
                callback()
                return

    threading.Thread(target=watch, name="ssesync-cancel", daemon=True).start()
    return lambda: done.append(None)


def signal_of(cancel: Any) -> Any:
    """The signal of a ``cancel=``.

    :param cancel: as for :func:`link`.
    :return: the token of ``cancel``, or ``cancel`` itself if it is like a ``threading.Event``.
    :raises TypeError: it is neither.
    """
    token = getattr(cancel, "cancelled", cancel)
    if isinstance(token, CancelToken):
        return token
    if not all(callable(getattr(cancel, name, None)) for name in ("is_set", "wait")):
        raise TypeError(
            f"cancel= takes a CancelToken, an EventStream or a threading.Event, got {type(cancel).__name__}"
        )
    return cancel


def weakly(method: Callable[[], object]) -> Callable[[], None]:
    """Make a function that calls a method as long as the method's object exists, and does not keep it alive.

    :param method: the method.
    :return: the function.
    """
    reference = weakref.WeakMethod(method)

    def call() -> None:
        alive = reference()
        if alive is not None:
            alive()

    return call
