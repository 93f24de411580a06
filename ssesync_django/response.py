"""EventStreamResponse: an event stream as a Django response."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import threading
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from django.db import connections
from django.http import HttpRequest, StreamingHttpResponse
from django.http.response import HttpResponseBase
from django.urls import get_script_prefix, get_urlconf, set_script_prefix, set_urlconf
from django.utils import timezone, translation
from django.utils.cache import patch_vary_headers

from ssesync import CloseReason, EventStream, Writer
from ssesync.wire import escape

from .apps import app_settings, current_environ
from .dropped import end_with_request
from .encoder import dump_json
from .keys import own_key

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from ssesync.options import ResponseOptions

__all__ = ["EventStreamResponse"]

logger = logging.getLogger("ssesync")
_warned = threading.Event()

_WRAPPED = "a middleware has wrapped the response's content, and must see all of it"


class EventStreamResponse(StreamingHttpResponse):
    """Streams events from ``source``; made within a view.

    :param source: a source of :class:`ssesync.EventStream`: an iterable of events, a generator function, a
        :class:`ssesync.Writer`; or an ``EventStream`` itself.
    :param request: the request that this answers. May be left out with ``ssesync_django`` in ``INSTALLED_APPS``.
    :param headers: more headers; they replace defaults of the same name.
    :param options: those of :class:`ssesync.EventStream`: ``finished``, ``on_close``, ``keep_alive``, …
    :raises Exception: an exception of the producer before its first event, so that ``Http404`` in it is a 404.

    Under ASGI the stream is served one event at a time, by a thread of its own. Made on a thread that runs an event
    loop, as in an asynchronous view, it is opened later: by ``render()``, which Django calls on another thread for
    every response that has it, before the middleware and the status line. So nothing blocks the loop, and an
    exception of the producer still gets its status. Until then ``status_code`` is 200.
    """

    #: Set while the response is not opened yet, see above.
    render: Callable[[], HttpResponseBase]
    # Django's own.
    _resource_closers: list[Callable[[], object]]

    def __init__(
        self,
        source: Iterable[Any] | Callable[[], Iterable[Any]] | Writer | EventStream | Any,
        *,
        request: HttpRequest | None = None,
        headers: Mapping[str, str] | Iterable[tuple[str, str]] | None = None,
        **options: Unpack[ResponseOptions],
    ) -> None:
        environ = current_environ() if request is None else request.META
        if isinstance(source, EventStream):
            if headers or options:
                raise TypeError("pass headers and options to the EventStream, not to the response that is made of it")
            stream = source
        else:
            stream = make_stream(source, environ, request, headers=headers, **options)
        #: The stream itself.
        self.event_stream = stream
        self._own_content: Iterable[bytes] = stream
        super().__init__(stream, headers=_with_identity(stream.headers))
        self._defer(functools.partial(self._open, environ, request))
        if not runs_event_loop():
            self._open_now()

    @classmethod
    def later(cls, make: Callable[[], EventStreamResponse]) -> EventStreamResponse:
        """Make a response on a thread that runs an event loop.

        :param make: makes the real response, and is called on another thread.
        :return: a response that becomes the real one. It has ``event_stream`` from then on.
        """
        response = cls.__new__(cls)
        response._own_content = response._late_content()
        StreamingHttpResponse.__init__(response, response._own_content)
        response._defer(lambda: response._adopt(make()))
        return response

    def _defer(self, opening: Callable[[], object]) -> None:
        self._opening: Callable[[], object] | None = opening
        self._set_before = dict(self.headers)
        self._callbacks: list[Callable[[Any], Any]] = []
        self.render = self._render

    def add_post_render_callback(self, callback: Callable[[Any], Any]) -> None:
        """Call ``callback`` with the response when ``render()`` is called; at once if it was. Django's decorators that
        are made from middleware use this.

        :param callback: the function.
        """
        if self._opening is None:
            callback(self)
        else:
            self._callbacks.append(callback)

    def _render(self) -> HttpResponseBase:
        self._open_now()
        response: HttpResponseBase = self
        for callback in self._callbacks:
            response = callback(response) or response
        return response

    def _open_now(self) -> None:
        opening, self._opening = self._opening, None
        if opening is not None:
            del self.render
            opening()

    def _open(self, environ: dict[str, Any] | None, request: HttpRequest | None) -> None:
        stream = self.event_stream
        if environ is not None and request is not None:
            # The file of the request's body, which is read to its end before the stream leaves the server.
            django_request = getattr(request, "_request", request)  # Django REST framework wraps it
            environ["ssesync.django_stream"] = getattr(django_request, "_stream", None)
        status = stream.open(environ)
        if request is not None:
            end_with_request(stream, request)
        if environ is None or "wsgi.input" not in environ:
            # Under ASGI the stream begins on another thread, which can't release the view's connections.
            release_connections()
        headers = _with_identity(stream.headers) if status.startswith("200") else dict(stream.headers)
        self._answer(int(status[:3]), headers)

    def _adopt(self, made: EventStreamResponse) -> None:
        made._open_now()  # if it was made on the thread of an event loop too
        self.event_stream = made.event_stream
        self._answer(made.status_code, dict(made.headers))

    def _answer(self, status: int, headers: Mapping[str, str]) -> None:
        """Set the status and the headers that result from opening the stream, except headers that were set
        meanwhile."""
        self.status_code = status
        for name, value in self._set_before.items():
            if self.headers.get(name) == value:
                del self.headers[name]
        for name, value in headers.items():
            if name.lower() == "vary":
                patch_vary_headers(self, [each.strip() for each in value.split(",")])
            else:
                self.headers.setdefault(name, value)
        if self._is_wrapped():
            self.event_stream.stay_served(_WRAPPED)

    @property
    def streaming_content(self) -> Any:
        """The stream, or the body with which a middleware has wrapped or replaced it."""
        return super().streaming_content

    @streaming_content.setter
    def streaming_content(self, value: Any) -> None:
        StreamingHttpResponse.streaming_content.__set__(self, value)  # type: ignore[union-attr]  # it is a property
        self._content = value
        if self._is_wrapped() and "event_stream" in self.__dict__:
            self.event_stream.stay_served(_WRAPPED)

    def close(self) -> None:
        """Close the response and the stream. Django calls this at the response's end.

        If a producer still runs, as the stream was detached, the resources that Django closes with the response, such
        as uploaded files, are closed at the stream's end. ``request_finished`` is sent now, on the server's thread,
        whose database connections its receivers close.
        """
        stream: EventStream | None = self.__dict__.get("event_stream")
        closers = list(self._resource_closers)
        if stream is not None and stream.defer(functools.partial(_close_all, closers)):
            self._resource_closers.clear()
        try:
            super().close()
        finally:
            if stream is not None:
                stream.close()

    def _is_wrapped(self) -> bool:
        return self._content is not self._own_content

    def _late_content(self) -> Iterator[bytes]:
        yield from self.event_stream

    def __iter__(self) -> Iterator[bytes]:
        self._open_now()
        if self.status_code < 200 or self.status_code in (204, 304):  # without a body (RFC 9110, section 15)
            self.event_stream.close()
            return iter(())
        return super().__iter__()

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """The iterator of Django's ASGI handler, which would otherwise read the whole stream first."""
        loop = asyncio.get_running_loop()
        executor = ThreadPoolExecutor(1, thread_name_prefix="ssesync-asgi")
        try:
            if self.is_async:  # a middleware has replaced the stream
                async for part in super().__aiter__():
                    yield part
                return
            chunks = await loop.run_in_executor(executor, iter, self)
            while (chunk := await loop.run_in_executor(executor, next, chunks, None)) is not None:
                yield chunk
        finally:
            self._leave(executor)

    def _leave(self, executor: ThreadPoolExecutor) -> None:
        """End the stream without waiting, and without its callbacks, ``on_close`` for one, on the event loop."""
        stream = self.__dict__.get("event_stream")
        if stream is not None:
            stream.cancel(CloseReason.CLIENT_GONE)
            try:
                executor.submit(stream.close)
            except RuntimeError:  # the interpreter is ending
                stream.close()
        executor.shutdown(wait=False)


def _close_all(closers: Iterable[Callable[[], object]]) -> None:
    """Call the functions that Django calls when it closes a response."""
    for close in closers:
        with contextlib.suppress(Exception):  # as Django does
            close()


def runs_event_loop() -> bool:
    """Whether this thread runs an event loop, which must not be blocked.

    :return: whether it does.
    """
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def _with_identity(headers: Iterable[tuple[str, str]]) -> dict[str, str]:
    # GZipMiddleware would buffer the stream; it skips responses that have a coding already.
    return {"Content-Encoding": "identity", **dict(headers)}


def make_stream(
    source: Any,
    environ: Mapping[str, Any] | None,
    request: HttpRequest | None = None,
    *,
    imperative: bool = False,
    **options: Any,
) -> EventStream:
    """The core's stream with the project's settings and Django's JSON encoder, which releases database connections."""
    settings = options.setdefault("settings", app_settings())
    options.setdefault("dumps", dump_json)
    options.setdefault("scope", Scope())
    # In tests the view must run on the test's thread, and the open transaction is the test's.
    tested = is_tested(environ)
    if tested:
        options.setdefault("threaded", False)
    release = options.get("release_db", settings.release_db)
    release_step = release_connections if tested else release_and_warn
    if release is not None:
        options.setdefault("on_start", release_step)
    if release == "step":
        options.setdefault("after_step", release_step)
    if options.get("max_streams_per_key", settings.max_streams_per_key):
        # A function, called when the stream is opened: finding the logged-in user may take a query.
        options.setdefault("key", lambda environ: own_key(request))
    if environ is not None:
        options.setdefault("name", environ.get("PATH_INFO"))
    make = EventStream.from_writer if imperative else EventStream
    return make(source, **options)


def is_tested(environ: Mapping[str, Any] | None) -> bool:
    """Whether a request comes from Django's test client or request factory.

    :param environ: its environ.
    :return: whether it does.
    """
    return type((environ or {}).get("wsgi.input")).__module__ == "django.test.client"


def release_connections() -> list[str]:
    """Close this thread's database connections, except those that an atomic block holds.

    Django opens a connection again on its next use.

    :return: the aliases of the connections that an atomic block holds.
    """
    held = []
    for connection in connections.all(initialized_only=True):
        if connection.in_atomic_block:
            held.append(connection.alias)
        else:
            connection.close()
    return held


def release_and_warn() -> None:
    """Close this thread's database connections, and warn once of one that a transaction holds."""
    # A connection that threads share belongs to a test, whose transaction is meant to last.
    held = [alias for alias in release_connections() if not connections[alias].allow_thread_sharing]
    if held and not _warned.is_set():
        _warned.set()
        logger.warning(
            "a transaction holds the database connection %s while an event stream waits; end every atomic block, the "
            "producer's or a middleware's, before the next event",
            escape(", ".join(held)),
        )


class Scope:
    """Sets Django's thread-local state on the producer's thread, and releases its connections at the end.

    The language, time zone, URL configuration and script prefix are in asgiref's ``Local``, which since 3.12 keeps
    them for the thread that has set them, not for a copied context.
    """

    def __init__(self) -> None:
        self._language = translation.get_language()
        self._timezone = timezone.get_current_timezone()
        self._urlconf = get_urlconf()
        self._prefix = get_script_prefix()
        # If a test shares its connection with the server's threads, the producer must see that transaction too.
        self._shared = [each for each in connections.all(initialized_only=True) if each.allow_thread_sharing]

    @contextlib.contextmanager
    def __call__(self) -> Iterator[None]:
        with translation.override(self._language), timezone.override(self._timezone):
            set_urlconf(self._urlconf)
            set_script_prefix(self._prefix)
            here = connections.all(initialized_only=True)
            shared = [connection for connection in self._shared if connection not in here]
            for connection in shared:
                connections[connection.alias] = connection
            try:
                yield
            finally:
                for connection in shared:
                    del connections[connection.alias]  # owned by another thread
                release_connections()


def refusal(
    request: HttpRequest, status: str, why: str, options: Mapping[str, Any], *headers: tuple[str, str]
) -> EventStreamResponse:
    """A response that is no stream, with a reason for the client.

    :param request: the request.
    :param status: the status line without the protocol.
    :param why: the text of the response.
    :param options: the stream's options.
    :param headers: more headers.
    :return: the response.
    """
    given: dict[str, Any] = {"settings": app_settings(), **_for_refusals(options)}
    stream = EventStream.answering(status, why, headers, **given)
    return EventStreamResponse(stream, request=request)


def unavailable(request: HttpRequest, options: Mapping[str, Any]) -> EventStreamResponse:
    """The response while the broker can't be reached.

    :param request: the request.
    :param options: the stream's options.
    :return: the response.
    """
    kept = {"settings": app_settings(), **_for_refusals(options)}
    return EventStreamResponse(EventStream.refused("try again", **kept), request=request)


def _for_refusals(options: Mapping[str, Any]) -> dict[str, Any]:
    """The stream's options that also apply to a response that is no stream."""
    names = ("settings", "same_origin_only", "cors_origins", "cors_credentials", "refusal", "retry", "detach")
    return {name: options[name] for name in names if name in options}
