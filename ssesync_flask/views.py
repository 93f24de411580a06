"""View decorators: for a generator view, and for a function with a writer."""

from __future__ import annotations

import contextlib
import functools
import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, Protocol, overload
from weakref import WeakKeyDictionary, WeakSet

from flask import Flask, request
from flask.signals import request_started
from werkzeug.wrappers import Response

from ssesync import EventStream, Writer

from .response import EventStreamResponse, make_stream

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from ssesync.options import ViewOptions

__all__ = ["event_stream", "event_writer"]

View = Callable[..., Any]
P = ParamSpec("P")


class StreamDecorator(Protocol):
    """What :func:`event_stream` returns for its options. The view keeps its parameters."""

    def __call__(self, view: Callable[P, object], /) -> Callable[P, Response]:
        """Make the view."""
        ...


class WriterDecorator(Protocol):
    """What :func:`event_writer` returns for its options. The view keeps its parameters, except the writer."""

    def __call__(self, view: Callable[Concatenate[Writer, P], object], /) -> Callable[P, Response]:
        """Make the view."""
        ...


# The wrappers that the decorators have made of each function.
_made: WeakKeyDictionary[View, WeakSet[View]] = WeakKeyDictionary()


@overload
def event_stream(view: Callable[P, object], /) -> Callable[P, Response]: ...
@overload
def event_stream(**options: Unpack[ViewOptions]) -> StreamDecorator: ...
def event_stream(view: View | None = None, /, **options: Any) -> Any:
    """Make a view of a generator function, whose events are streamed.

    ::

        @app.get("/clock")
        @event_stream
        def clock():
            while True:
                yield {"now": time.time()}
                time.sleep(1)

    It may yield :class:`ssesync.Event`, text, UTF-8 bytes, and values that the application's JSON provider encodes. It
    runs in a thread of its own, with the request's context, and is closed there when the client disconnects. A function
    that returns an iterable instead is called within the request; if it returns a response, that response is sent.

    ``@event_stream(keep_alive=5, finished=...)`` takes the options of :class:`ssesync.EventStream`. An exception
    before the first event, that of ``abort(403)`` for example, is answered as in any other view.

    The route's decorator must be above this one. In the other order Flask registers the undecorated function, which is
    an error at its first request.

    :param view: the function.
    :param options: those of :class:`ssesync.EventStream`.
    :return: the view, or with options a decorator.
    :raises ssesync.SettingsError: an option that does not exist or can't work.
    :raises TypeError: the function is asynchronous.
    """
    EventStream(view or (), **options)  # checks them here, and not in each request
    if view is None:
        return functools.partial(event_stream, **options)
    generates = inspect.isgeneratorfunction(view)

    @functools.wraps(view)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        source = functools.partial(view, *args, **kwargs) if generates else view(*args, **kwargs)
        return source if isinstance(source, Response) else EventStreamResponse(source, **options)

    return _register(view, wrapper)


@overload
def event_writer(view: Callable[Concatenate[Writer, P], object], /) -> Callable[P, Response]: ...
@overload
def event_writer(**options: Unpack[ViewOptions]) -> WriterDecorator: ...
def event_writer(view: View | None = None, /, **options: Any) -> Any:
    """Make a view of a function that is called with a :class:`ssesync.Writer` before the route's arguments.

    ::

        @app.post("/jobs/<job_id>")
        @event_writer
        def job(w, job_id):
            for percent in run(job_id):
                w.write_event(str(percent), type="progress", id=percent)

    The stream ends when it returns. Everything else is as for :func:`event_stream`.

    :param view: the function.
    :param options: those of :class:`ssesync.EventStream`.
    :return: the view, or with options a decorator.
    :raises ssesync.SettingsError: an option that does not exist or can't work.
    :raises TypeError: the function is asynchronous, or a generator.
    """
    EventStream.from_writer(view or _nothing, **options)
    if view is None:
        return functools.partial(event_writer, **options)

    @functools.wraps(view)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        def produce(writer: Any) -> Any:
            return view(writer, *args, **kwargs)

        functools.update_wrapper(produce, view)
        return EventStreamResponse(make_stream(produce, imperative=True, **options))

    return _register(view, wrapper)


def _nothing(writer: Any) -> None:
    """The producer of a stream that is made only to check its options."""


def _register(view: View, wrapper: View) -> View:
    with contextlib.suppress(TypeError):  # it can't be weakly referenced
        _made.setdefault(view, WeakSet()).add(wrapper)
    request_started.connect(_check_order)
    return wrapper


def _check_order(app: Flask, **_: Any) -> None:
    """Refuse a request for a function that was decorated after its route was registered: Flask would send the
    output of the undecorated generator as ``text/html``. A function that has a route in addition to its wrapper's is
    allowed.
    """
    view = app.view_functions.get(request.endpoint or "")
    made = None
    if view is not None:
        with contextlib.suppress(TypeError):  # as above
            made = _made.get(view)
    if made is not None and not any(_wraps_one_of(each, made) for each in app.view_functions.values()):
        name = getattr(view, "__qualname__", repr(view))
        raise TypeError(
            f"the route of {name} was registered without event_stream or event_writer, which is above it: put the "
            f"route's decorator, for example @app.get(…), above the other one"
        )


def _wraps_one_of(function: View, made: WeakSet[View]) -> bool:
    """Whether a function is one of these wrappers, itself wrapped by other decorators or not."""
    try:
        return inspect.unwrap(function, stop=made.__contains__) in made
    except (TypeError, ValueError):  # it is not hashable, or wraps itself
        return False
