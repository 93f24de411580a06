"""View decorators: for a generator view, and for one with a writer. For functions and for methods."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, Protocol, TypeVar, overload

from django.http import HttpRequest
from django.http.response import HttpResponseBase

from ssesync import EventStream, Writer

from .response import EventStreamResponse, make_stream

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from ssesync.options import ViewOptions

__all__ = ["event_stream", "event_writer"]

View = Callable[..., Any]
P = ParamSpec("P")
R = TypeVar("R")  # a request, Django's or that of REST framework
V = TypeVar("V")  # an object whose method is decorated


class StreamDecorator(Protocol):
    """What :func:`event_stream` returns for its options. The view keeps its parameters."""

    def __call__(self, view: Callable[P, object], /) -> Callable[P, HttpResponseBase]:
        """Make the view."""
        ...


class WriterDecorator(Protocol):
    """What :func:`event_writer` returns for its options. The view keeps its parameters, except the writer."""

    @overload
    def __call__(
        self, view: Callable[Concatenate[R, Writer, P], object], /
    ) -> Callable[Concatenate[R, P], HttpResponseBase]: ...
    @overload
    def __call__(
        self, view: Callable[Concatenate[V, R, Writer, P], object], /
    ) -> Callable[Concatenate[V, R, P], HttpResponseBase]: ...


@overload
def event_stream(view: Callable[P, object], /) -> Callable[P, HttpResponseBase]: ...
@overload
def event_stream(**options: Unpack[ViewOptions]) -> StreamDecorator: ...
def event_stream(view: View | None = None, /, **options: Any) -> Any:
    """Make a view of a generator function (or of a view class's method), whose events are streamed.

    ::

        @event_stream
        def clock(request):
            while True:
                yield {"now": time.time()}
                time.sleep(1)

    It may yield :class:`ssesync.Event`, text, UTF-8 bytes, and values that ``DjangoJSONEncoder`` encodes. It runs in a
    thread of its own, and is closed there, with that thread's database connections, when the client disconnects. A
    function that returns an iterable instead is called within the request; if it returns a response, that response is
    sent.

    ``@event_stream(keep_alive=5, finished=...)`` takes the options of :class:`ssesync.EventStream`. An exception
    before the first event, ``Http404`` or ``PermissionDenied`` for example, is answered as in any other view.

    :param view: the function or method.
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
        _, request = find_request(args)
        source = functools.partial(view, *args, **kwargs) if generates else view(*args, **kwargs)
        if isinstance(source, HttpResponseBase):
            return source
        return EventStreamResponse(source, request=request, **options)

    return wrapper


@overload
def event_writer(
    view: Callable[Concatenate[R, Writer, P], object], /
) -> Callable[Concatenate[R, P], HttpResponseBase]: ...
@overload
def event_writer(
    view: Callable[Concatenate[V, R, Writer, P], object], /
) -> Callable[Concatenate[V, R, P], HttpResponseBase]: ...
@overload
def event_writer(**options: Unpack[ViewOptions]) -> WriterDecorator: ...
def event_writer(view: View | None = None, /, **options: Any) -> Any:
    """Make a view of a function that is called with a :class:`ssesync.Writer` after the request.

    ::

        @event_writer
        def job(request, w, job_id):
            for percent in run(job_id):
                w.write_event(str(percent), type="progress", id=percent)

    The stream ends when it returns. Everything else is as for :func:`event_stream`.

    :param view: the function or method.
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
        index, request = find_request(args)

        def produce(writer: Any) -> Any:
            return view(*args[: index + 1], writer, *args[index + 1 :], **kwargs)

        stream = make_stream(produce, request.META, request, imperative=True, **options)
        return EventStreamResponse(stream, request=request)

    return wrapper


def _nothing(writer: Any) -> None:
    """The producer of a stream that is made only to check its options."""


def find_request(args: tuple[Any, ...]) -> tuple[int, HttpRequest]:
    """Find the request among a view's arguments: the first of a function, the second of a method. DRF wraps it.

    :param args: the view's positional arguments.
    :return: its index, and Django's request.
    :raises TypeError: there is none.
    """
    for index, argument in enumerate(args[:2]):
        request = getattr(argument, "_request", argument)
        if isinstance(request, HttpRequest):
            return index, request
    raise TypeError(f"an event stream view takes the request first, got {args[:2]!r}")
