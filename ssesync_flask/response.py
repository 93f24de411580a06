"""EventStreamResponse: an event stream as a Flask response."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Iterable, Iterator, Mapping
from types import CodeType, GeneratorType
from typing import TYPE_CHECKING, Any

from flask import (
    Flask,
    Request,
    Response,
    after_this_request,
    current_app,
    has_request_context,
    request,
    stream_with_context,
)
from flask.globals import app_ctx, request_ctx
from werkzeug.exceptions import ServiceUnavailable
from werkzeug.wsgi import ClosingIterator

from ssesync import EventStream, Settings, Subscription, Writer
from ssesync.wire import with_cors

from .dropped import end_with_request, mark_sent
from .state import encoder_of, state_of_current_app

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment
    from typing_extensions import Unpack

    from ssesync.options import ResponseOptions

__all__ = ["EventStreamResponse", "after_step", "allow_other_origins", "unavailable"]


class EventStreamResponse(Response):
    """Streams events from ``source``; made within a request.

    :param source: a source of :class:`ssesync.EventStream`: an iterable of events, a generator function, a
        :class:`ssesync.Writer`; or an ``EventStream`` itself. Its producer runs with the request's context.
    :param headers: more headers; they replace defaults of the same name.
    :param options: those of :class:`ssesync.EventStream`: ``finished``, ``on_close``, ``keep_alive``, …
    :raises Exception: an exception of the producer before its first event, so that ``abort(403)`` in it is a 403.
    """

    def __init__(
        self,
        source: Iterable[Any] | Callable[[], Iterable[Any]] | Writer | EventStream | Any,
        *,
        headers: Mapping[str, str] | Iterable[tuple[str, str]] | None = None,
        **options: Unpack[ResponseOptions],
    ) -> None:
        if isinstance(source, EventStream):
            if headers or options:
                raise TypeError("pass headers and options to the EventStream, not to the response that is made of it")
            stream = source
        else:
            stream = make_stream(source, headers=headers, **options)
        #: The stream itself.
        self.event_stream = stream
        environ: WSGIEnvironment | None = request.environ if has_request_context() else None
        status = stream.open(environ)
        if environ is not None:
            end_with_request(environ, stream)
        # Werkzeug then refuses methods that read the whole stream, such as get_data() in an after_request function.
        super().__init__(stream, status=status, headers=stream.headers, direct_passthrough=True)
        if "content-type" not in {name.lower() for name, _ in stream.headers}:
            del self.headers["Content-Type"]
        if self.status_code == 200:
            # Extensions that compress skip responses that have a coding already.
            self.headers.setdefault("Content-Encoding", "identity")

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Answer a request."""
        mark_sent(environ, self.event_stream)
        return super().__call__(environ, start_response)

    def get_app_iter(self, environ: WSGIEnvironment) -> Iterable[bytes]:
        """The body: the stream, unless an extension has replaced ``response``. ``call_on_close`` callbacks are run at
        its end. HEAD, 1xx, 204 and 304 have no body (RFC 9110, sections 9.3.2 and 15): there the stream is closed.

        :param environ: the request's WSGI environ.
        :return: the body.
        """
        if environ["REQUEST_METHOD"] == "HEAD" or self.status_code < 200 or self.status_code in (204, 304):
            self.event_stream.close()
            return ClosingIterator((), self.close)
        if self.response is self.event_stream:
            return ClosingIterator(self.event_stream, self.close)
        self.event_stream.stay_served("an extension has wrapped the response's body, and must see all of it")
        return ClosingIterator(self.iter_encoded(), self.close)

    def close(self) -> None:
        """Close the body in ``response`` and the stream, and run the ``call_on_close`` callbacks. If the stream was
        detached with its producer, they are run at the stream's end."""
        try:
            if not (self._on_close and self.event_stream.defer(super().close)):
                super().close()
        finally:
            self.event_stream.close()

    def __reduce_ex__(self, protocol: Any) -> Any:
        """Refuse to be pickled, as a cache would: each client has a stream of its own."""
        raise TypeError(
            "an event stream can't be cached or pickled: take the view out of the cache (with Flask-Caching, drop "
            "@cache.cached from it, or give that unless= or response_filter=)"
        )


def unavailable(settings: Settings, error: Exception) -> EventStreamResponse:
    """The response to the current request while the broker can't be reached.

    :param settings: the stream's settings.
    :param error: the broker's error.
    :return: the response, unless its status is 503.
    :raises werkzeug.exceptions.ServiceUnavailable: it is, so that the application's handler for it is called.
    """
    response = EventStreamResponse(EventStream.refused("try again", settings=settings))
    if response.status_code == 503:
        raise ServiceUnavailable(retry_after=int(response.headers["Retry-After"])) from error
    return response


# Of the generator that stream_with_context() makes, in Flask 3.0 to 3.1.
_WITH_CONTEXT = {code for code in stream_with_context.__code__.co_consts if isinstance(code, CodeType)}


def _without_wrapper(source: Any) -> Any:
    """Return the generator inside one that ``stream_with_context()`` has made, any other source unchanged.

    ``stream_with_context()`` pushes the view's own contexts on the thread that runs the generator. The producer runs on
    another thread, while the view still has them: the view's request then failed with ``ValueError: <Token …> was
    created in a different Context``.
    """
    if not isinstance(source, GeneratorType) or source.gi_code not in _WITH_CONTEXT:
        return source
    if source.gi_frame is None or source.gi_yieldfrom is not None or "gen" not in source.gi_frame.f_locals:
        return source  # it has begun, or a later Flask makes it in another way
    inner = source.gi_frame.f_locals["gen"]
    source.close()  # before its first step, so not the inner one; Flask 3.0 has pushed a context, on this thread
    return inner


def make_stream(source: Any, *, imperative: bool = False, **options: Any) -> EventStream:
    """The core's stream, with the application's settings and JSON encoder, its producer in the request's context."""
    source = _without_wrapper(source)
    options.setdefault("settings", state_of_current_app().settings)
    app: Flask = current_app._get_current_object()  # type: ignore[attr-defined]
    options.setdefault("dumps", encoder_of(app))
    options.setdefault("after_step", after_step(app, options))
    if has_request_context():
        current: Request = request._get_current_object()  # type: ignore[attr-defined]
        options.setdefault("name", current.path)
        if not isinstance(source, (Subscription, Writer)):  # these run no producer, and a copy is 5 % of a request
            options.setdefault("scope", _Scope())
        # A request of the test client or of test_request_context: there the view must run on the test's thread. No
        # server passes a BytesIO without SERVER_SOFTWARE. Starlette's WSGIMiddleware does, but sets wsgi.multiprocess.
        environ = current.environ
        in_memory = isinstance(environ.get("wsgi.input"), io.BytesIO)
        if in_memory and "SERVER_SOFTWARE" not in environ and not environ.get("wsgi.multiprocess"):
            options.setdefault("threaded", False)
    make: Callable[..., EventStream] = EventStream.from_writer if imperative else EventStream
    return make(source, **options)


class _Scope:
    """Pushes the request's contexts for its producer and pops them when it ends, on the same thread.

    The view's own are popped, with their teardown, when the view returns. So the producer gets its own: the same
    request and session, the same ``flask.g`` values, a teardown of its own.
    """

    def __init__(self) -> None:
        self._app = current_app._get_current_object()  # type: ignore[attr-defined]
        self._request = request_ctx.copy()
        self._g = app_ctx.g

    @contextlib.contextmanager
    def __call__(self) -> Iterator[None]:
        with self._app.app_context() as context:
            context.g.__dict__.update(self._g.__dict__)
            with self._request:
                yield


def after_step(app: Flask, options: Mapping[str, Any]) -> Callable[[], object] | None:
    """Remove Flask-SQLAlchemy's session after each write, if the extension is installed. The application's teardown
    removes it at the end."""
    session = getattr(app.extensions.get("sqlalchemy"), "session", None)
    release = options.get("release_db", options["settings"].release_db)
    return session.remove if session is not None and release == "step" else None


def allow_other_origins(settings: Settings) -> None:
    """Allow the pages of ``cors_origins`` to read the response to the current request, if there is one, also an error.

    :param settings: the settings.
    """
    if not settings.cors_origins or not has_request_context():
        return
    environ = request.environ

    @after_this_request
    def add_headers(response: Response) -> Response:
        headers, credentials = list(response.headers), settings.cors_credentials
        response.headers.clear()
        response.headers.extend(with_cors(headers, environ, settings.cors_origins, credentials=credentials))
        return response
