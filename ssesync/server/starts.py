"""The wait for a producer's first event before the response begins.

An exception of the producer while the view waits becomes the framework's own error response, with its status. But each
start holds one of the server's threads for that time, if the first event takes longer: at 0.25 s four threads start
15.5 streams in a second, at 0.02 s 135. A served stream holds its thread anyway. A stream that will be detached waits
the shorter time, unless its view has raised: after a producer has raised before its first event, later starts of its
view wait the longer time. So ``abort(404)`` after a query of 50 ms is an error event the first time, and 404 from then
on.

A relay that sends its request after the client was detached passes on a refusal with its status. If the stream then
stays served, because a middleware changes its body, the head was sent before. So a view whose last stream has stayed
served is recorded too, and its next stream sends the request in the view.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from types import AsyncGeneratorType, CodeType, CoroutineType, GeneratorType

from ..settings import Settings

__all__ = ["USUAL", "View", "Views", "view_of", "views"]

#: Identifies the function that makes a view's events: file and line, or its type.
View = tuple[str, int]

#: Seconds to wait for a first event: the default, and for a stream that will be detached.
USUAL, _SHORT = 0.25, 0.02
# The most views that are recorded. An application has some hundred.
_MOST = 1000


class Views:
    """What is remembered of the views of this process. Takes no lock."""

    def __init__(self) -> None:
        self._raising: dict[View, None] = {}
        self._staying: dict[View, None] = {}

    def raised(self, view: View) -> None:
        """Record that a producer of a view has raised before its first event."""
        _record(self._raising, view)

    def stayed(self, view: View) -> None:
        """Record that a stream of a view could not be detached."""
        _record(self._staying, view)

    def detached(self, view: Callable[[], View]) -> None:
        """Record that a stream of a view was detached."""
        if self._staying:
            self._staying.pop(view(), None)

    def stays(self, view: Callable[[], View]) -> bool:
        """Whether the last stream of a view could not be detached."""
        return bool(self._staying) and view() in self._staying

    def wait(self, view: Callable[[], View], settings: Settings, *, detached: bool) -> float:
        """Find the time to wait for a first event.

        :param view: identifies the stream's view.
        :param settings: the stream's.
        :param detached: whether the stream will be detached.
        :return: seconds.
        """
        if settings.first_event_timeout != "auto":
            return settings.first_event_timeout
        return _SHORT if detached and view() not in self._raising else USUAL


def _record(views: dict[View, None], view: View) -> None:
    if view not in views and len(views) >= _MOST:
        views.pop(next(iter(views), view), None)
    views[view] = None


def view_of(source: object) -> View:
    """Identify the view, by the object that makes its events.

    :param source: a function, also a wrapped or partial one, a generator, or another object.
    :return: the same for each request of a view.
    """
    if isinstance(source, GeneratorType):
        return _view(source.gi_code)
    if isinstance(source, AsyncGeneratorType):
        return _view(source.ag_code)
    if isinstance(source, CoroutineType):
        return _view(source.cr_code)
    while isinstance(source, functools.partial):
        source = source.func
    try:
        source = inspect.unwrap(source) if callable(source) else source
    except ValueError:  # it wraps itself
        pass
    code = getattr(source, "__code__", None)
    kind = type(source)
    return _view(code) if isinstance(code, CodeType) else (f"{kind.__module__}.{kind.__qualname__}", 0)


def _view(code: CodeType) -> View:
    return code.co_filename, code.co_firstlineno


#: The views of this process.
views = Views()
