"""View decorators: a generator view, and an imperative one that is given a writer."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any, overload

from werkzeug.wrappers import Response

from .response import EventStreamResponse, make_stream

__all__ = ["event_stream", "event_writer"]

View = Callable[..., Any]


@overload
def event_stream(view: View, /) -> View: ...
@overload
def event_stream(**options: Any) -> Callable[[View], View]: ...
def event_stream(view: View | None = None, /, **options: Any) -> Any:
    """Make a view of a generator function: what it yields is streamed.

    ::

        @app.get("/clock")
        @event_stream
        def clock():
            while True:
                yield {"now": time.time()}
                time.sleep(1)

    It may yield :class:`ssesync.Event`, text, UTF-8 bytes, and what the application's JSON provider encodes. It runs
    in a thread of its own, with the request's context, and is closed there when the client leaves. A function that
    returns an iterable instead is called within the request; if it returns a response, that is the answer.

    ``@event_stream(keep_alive=5, finished=...)`` takes the options of :class:`ssesync.EventStream`. What the
    generator raises before its first event, ``abort(403)`` say, is answered as in any other view.
    """
    if view is None:
        return functools.partial(event_stream, **options)
    generates = inspect.isgeneratorfunction(view)

    @functools.wraps(view)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        source = functools.partial(view, *args, **kwargs) if generates else view(*args, **kwargs)
        return source if isinstance(source, Response) else EventStreamResponse(source, **options)

    return wrapper


@overload
def event_writer(view: View, /) -> View: ...
@overload
def event_writer(**options: Any) -> Callable[[View], View]: ...
def event_writer(view: View | None = None, /, **options: Any) -> Any:
    """Make a view of a function that is given a :class:`ssesync.Writer` before the route's arguments.

    ::

        @app.post("/jobs/<job_id>")
        @event_writer
        def job(w, job_id):
            for percent in run(job_id):
                w.write_event(str(percent), type="progress", id=percent)

    The stream ends when it returns. In all else it is as :func:`event_stream`.
    """
    if view is None:
        return functools.partial(event_writer, **options)

    @functools.wraps(view)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        def produce(writer: Any) -> Any:
            return view(writer, *args, **kwargs)

        functools.update_wrapper(produce, view)
        return EventStreamResponse(make_stream(produce, imperative=True, **options))

    return wrapper
