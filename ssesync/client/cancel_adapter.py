"""What may be given as ``cancel=``, and how it is listened to."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable
from typing import Any

from ..cancel import CancelToken

__all__ = ["link", "signal_of", "weakly"]

# How often a foreign cancel event, which can't call back, is looked at.
_POLL_SECONDS = 0.1


def link(cancel: Any, callback: Callable[[], object]) -> Callable[[], None]:
    """Have ``callback`` called when ``cancel`` says stop; what undoes that is returned.

    :param callback: one of ours, which never blocks: it is called by whichever thread gives the signal.
    """
    signal = signal_of(cancel)
    if isinstance(signal, CancelToken):
        signal._add(callback, own=True)
        return lambda: signal.remove_callback(callback)
    if signal.is_set():
        callback()
        return lambda: None
    done: list[None] = []  # no threading.Event, which a signal handler must not set

    def watch() -> None:
        while not done:
            if signal.wait(_POLL_SECONDS):
                callback()
                return

    threading.Thread(target=watch, name="ssesync-cancel", daemon=True).start()
    return lambda: done.append(None)


def signal_of(cancel: Any) -> Any:
    """The token of ``cancel``, or itself where it is something like a ``threading.Event``.

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
    """A function that calls a method for as long as its object is there."""
    reference = weakref.WeakMethod(method)

    def call() -> None:
        alive = reference()
        if alive is not None:
            alive()

    return call
