"""How long a view waits for its producer's first event before the response begins.

What a producer raises while the view waits becomes the framework's own error response, with its status. But each start
holds one of the server's threads for that long where the first event takes longer: at 0.25 s four threads start 15.5
streams in a second, at 0.02 s 135. A stream that is served holds its thread in any case. One that will be detached
waits the shorter time, unless its view is one of those that raise: once a start has done so before its first event, the
view is remembered, and its later starts wait the longer time. So ``abort(404)`` behind a query of 50 ms is an error
event the first time, and 404 from then on.

A relay that asks its upstream after the client was detached passes on a refusal with its status. Where a stream stays
served after all, as a middleware changes its body, the head was sent before. So a view whose last stream has stayed
served is remembered too, and the next stream asks its upstream in the view.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from types import CodeType, GeneratorType

from ..settings import Settings

__all__ = ["USUAL", "View", "Views", "view_of", "views"]

#: Identifies the function that makes a view's events: file and line, or its type.
View = tuple[str, int]

#: Seconds to wait for a first event: usually, and of a stream that will be detached.
USUAL, _SHORT = 0.25, 0.02
# Views that are remembered at most. An application has some hundred.
_MOST = 1000


class Views:
    """What is remembered of the views of this process. Takes no lock."""

    def __init__(self) -> None:
        self._raising: dict[View, None] = {}
        self._staying: dict[View, None] = {}

    def raised(self, view: View) -> None:
        """Remember a view: a producer of it has raised before its first event."""
        _remember(self._raising, view)

    def stayed(self, view: View) -> None:
        """Remember a view: a stream of it was to be detached, and stayed served."""
        _remember(self._staying, view)

    def left(self, view: Callable[[], View]) -> None:
        """A stream of a view was detached."""
        if self._staying:
            self._staying.pop(view(), None)

    def stays(self, view: Callable[[], View]) -> bool:
        """Whether the last stream of a view that was to be detached has stayed served."""
        return bool(self._staying) and view() in self._staying

    def wait(self, view: Callable[[], View], settings: Settings, *, detached: bool) -> float:
        """Find how long to wait for a first event.

        :param view: identifies the stream's view.
        :param settings: the stream's.
        :param detached: whether the stream is to be detached.
        :return: seconds.
        """
        if settings.first_event_timeout != "auto":
            return settings.first_event_timeout
        return _SHORT if detached and view() not in self._raising else USUAL


def _remember(views: dict[View, None], view: View) -> None:
    if view not in views and len(views) >= _MOST:
        views.pop(next(iter(views), view), None)
    views[view] = None


def view_of(source: object) -> View:
    """Identify what makes the events.

    :param source: a function, one that is wrapped or has its arguments already, a generator, or another object.
    :return: the same for each request of a view.
    """
    if isinstance(source, GeneratorType):
        return _place(source.gi_code)
    while isinstance(source, functools.partial):
        source = source.func
    try:
        source = inspect.unwrap(source) if callable(source) else source
    except ValueError:  # it wraps itself
        pass
    code = getattr(source, "__code__", None)
    kind = type(source)
    return _place(code) if isinstance(code, CodeType) else (f"{kind.__module__}.{kind.__qualname__}", 0)


def _place(code: CodeType) -> View:
    return code.co_filename, code.co_firstlineno


#: The views of this process.
views = Views()
