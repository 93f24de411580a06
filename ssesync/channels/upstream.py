"""The source of a feed: any iterable that a user's function returns, normally an :class:`EventSource`."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from typing import Any, Protocol, runtime_checkable

__all__ = ["cancel", "state_of"]


@runtime_checkable
class _Reconnecting(Protocol):
    """A source that has a state, as :class:`EventSource` does."""

    state: str


@runtime_checkable
class _Cancellable(Protocol):
    def cancel(self) -> object: ...


@runtime_checkable
class _Closable(Protocol):
    def close(self) -> object: ...


def state_of(source: Iterable[Any] | None) -> str:
    """The state of a source.

    :param source: the source, if there is one.
    :return: its state; ``""`` if it has none.
    """
    return source.state if isinstance(source, _Reconnecting) else ""


def cancel(source: Iterable[Any] | None) -> None:
    """End a source by its ``cancel()``, or else its ``close()``, if it has one. Any thread.

    :param source: the source, if there is one.
    """
    # Any error is suppressed: a running generator can't be closed, and is ended by the thread that runs it.
    with contextlib.suppress(Exception):
        if isinstance(source, _Cancellable):
            source.cancel()
        elif isinstance(source, _Closable):
            source.close()
