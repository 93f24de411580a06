"""EventStreamResponse: an event stream as a Django response."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import threading
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from django.core.serializers.json import DjangoJSONEncoder
from django.db import connections
from django.http import HttpRequest, StreamingHttpResponse
from django.urls import get_script_prefix, get_urlconf, set_script_prefix, set_urlconf
from django.utils import timezone, translation
from django.utils.functional import Promise

from ssesync import EventStream, Writer

from .apps import app_settings, current_environ
from .dropped import end_with_request

__all__ = ["EventStreamResponse"]

logger = logging.getLogger("ssesync")
_warned = threading.Event()


class EventStreamResponse(StreamingHttpResponse):
    """Streams events from ``source``; made within a view.

    :param source: what :class:`ssesync.EventStream` takes: an iterable of events, a generator function, a
        :class:`ssesync.Writer`; or an ``EventStream`` itself.
    :param request: the request that this answers. May be left out with ``ssesync_django`` in ``INSTALLED_APPS``.
    :param headers: more headers, or others instead of the default ones.
    :param options: what else :class:`ssesync.EventStream` takes: ``finished``, ``on_close``, ``keep_alive``, …
    :raises Exception: what the producer raises before its first event, so that ``Http404`` in it is a 404.

    Under ASGI the stream is served one event at a time, by a thread of its own.
    """

    def __init__(
        self,
        source: Iterable[Any] | Callable[[], Iterable[Any]] | Writer | EventStream | Any,
        *,
        request: HttpRequest | None = None,
        headers: Mapping[str, str] | Iterable[tuple[str, str]] | None = None,
        **options: Any,
    ) -> None:
        environ = current_environ() if request is None else request.META
        if isinstance(source, EventStream):
            if headers or options:
                raise TypeError("give headers and options to the EventStream, not to the response that is made of it")
            stream = source
        else:
            stream = make_stream(source, environ, request, headers=headers, **options)
        #: The stream itself.
        self.event_stream = stream
        status = stream.open(environ)
        if request is not None:
            end_with_request(stream, request)
        if environ is None or "wsgi.input" not in environ:
            # Under ASGI the view's connections are another thread's by the time that the stream begins.
            release_connections()
        super().__init__(stream, status=int(status[:3]), headers=dict(stream.headers))
        if "content-type" not in {name.lower() for name, _ in stream.headers}:
            del self.headers["Content-Type"]
        if self.status_code == 200:
            # GZipMiddleware would hold the stream back; it leaves alone what has an encoding already.
            self.headers.setdefault("Content-Encoding", "identity")

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """What Django's ASGI handler iterates over, instead of reading the whole stream first."""
        loop = asyncio.get_running_loop()
        executor = ThreadPoolExecutor(1, thread_name_prefix="ssesync-asgi")
        chunks = iter(self)
        try:
            while (chunk := await loop.run_in_executor(executor, next, chunks, None)) is not None:
                yield chunk
        finally:
            self.event_stream.close()
            executor.shutdown(wait=False)


def make_stream(
    source: Any,
    environ: Mapping[str, Any] | None,
    request: HttpRequest | None = None,
    *,
    imperative: bool = False,
    **options: Any,
) -> EventStream:
    """The core's stream with the project's settings and Django's JSON, letting go of database connections."""
    settings = options.setdefault("settings", app_settings())
    options.setdefault("dumps", dump_json)
    options.setdefault("scope", _Scope())
    # There the view must run where the test does, and the transaction that is open is the test's.
    tested = is_tested(environ)
    if tested:
        options.setdefault("threaded", False)
    release = options.get("release_db", settings.release_db)
    let_go = release_connections if tested else _release_and_warn
    if release is not None:
        options.setdefault("on_start", let_go)
    if release == "step":
        options.setdefault("after_step", let_go)
    if options.get("max_streams_per_key", settings.max_streams_per_key) and (key := own_key(request)):
        options.setdefault("key", key)
    if environ is not None:
        options.setdefault("name", environ.get("PATH_INFO"))
    make = EventStream.from_writer if imperative else EventStream
    return make(source, **options)


def is_tested(environ: Mapping[str, Any] | None) -> bool:
    """Whether a request is one of Django's test client or request factory."""
    return type((environ or {}).get("wsgi.input")).__module__ == "django.test.client"


def release_connections() -> list[str]:
    """Close this thread's database connections, but for those that an atomic block holds: their aliases are returned.

    Django opens a connection again on its next use.
    """
    held = []
    for connection in connections.all(initialized_only=True):
        if connection.in_atomic_block:
            held.append(connection.alias)
        else:
            connection.close()
    return held


def _release_and_warn() -> None:
    # One that threads share is a test's: its transaction is meant to last.
    held = [alias for alias in release_connections() if not connections[alias].allow_thread_sharing]
    if held and not _warned.is_set():
        _warned.set()
        logger.warning(
            "a transaction holds the database connection %s while an event stream waits; let no atomic block, be it "
            "the producer's or a middleware's, last from one event to the next",
            ", ".join(held),
        )


class _Scope:
    """Gives the producer's thread what Django keeps for each thread, and lets go of its connections in the end.

    The language, time zone, URL configuration and script prefix lie in asgiref's ``Local``, which since 3.12 shows
    them to the thread that set them alone, whatever context another thread runs in.
    """

    def __init__(self) -> None:
        self._language = translation.get_language()
        self._timezone = timezone.get_current_timezone()
        self._urlconf = get_urlconf()
        self._prefix = get_script_prefix()
        # Where a test shares its connection with the server's threads, the producer must see that transaction too.
        self._shared = [each for each in connections.all(initialized_only=True) if each.allow_thread_sharing]

    @contextlib.contextmanager
    def __call__(self) -> Iterator[None]:
        with translation.override(self._language), timezone.override(self._timezone):
            set_urlconf(self._urlconf)
            set_script_prefix(self._prefix)
            here = connections.all(initialized_only=True)
            brought = [connection for connection in self._shared if connection not in here]
            for connection in brought:
                connections[connection.alias] = connection
            try:
                yield
            finally:
                for connection in brought:
                    del connections[connection.alias]  # not this thread's to close
                release_connections()


class _Refusal:
    """A source that is no stream but another answer, which so gets the headers that a stream would."""

    def __init__(self, status: str, why: str, headers: Iterable[tuple[str, str]]) -> None:
        self.answer = (status, [("Content-Type", "text/plain; charset=utf-8"), *headers], f"{why}\n".encode())

    def take(self, timeout: float | None = None) -> list[bytes] | None:
        return None

    def cancel(self, reason: object = None) -> None:
        pass


def refusal(
    request: HttpRequest, status: str, why: str, options: Mapping[str, Any], *headers: tuple[str, str]
) -> EventStreamResponse:
    """An answer that is no stream, for a reason that the client is told."""
    return EventStreamResponse(_Refusal(status, why, headers), request=request, **_for_refusals(options))


def unavailable(request: HttpRequest, options: Mapping[str, Any]) -> EventStreamResponse:
    """The answer while the broker can't be reached."""
    kept = {"settings": app_settings(), **_for_refusals(options)}
    return EventStreamResponse(EventStream.refused("try again", **kept), request=request)


def _for_refusals(options: Mapping[str, Any]) -> dict[str, Any]:
    """Those of a stream's options that mean something for an answer that is none."""
    names = ("settings", "same_origin_only", "cors_origins", "cors_credentials", "refusal", "retry", "detach")
    return {name: options[name] for name in names if name in options}


def key_of(who: Any) -> str:
    """The key of a user, for limits and for what is revoked; text is a key itself.

    :raises TypeError: it is neither.
    """
    if isinstance(who, str):
        return who
    if getattr(who, "pk", None) is None:
        raise TypeError(f"a key is text or a saved user, got {type(who).__name__}")
    return f"user {who.pk}"


def own_key(request: Any) -> str | None:
    """The key of the user who is logged in, if any."""
    user = getattr(request, "user", None)
    return key_of(user) if user is not None and user.is_authenticated else None


def dump_json(value: Any) -> str:
    """JSON by Django's encoder, without NaN, which is none."""
    if isinstance(value, Promise):
        return str(value)  # a lazy translation is text
    return json.dumps(value, cls=DjangoJSONEncoder, allow_nan=False, ensure_ascii=False, separators=(",", ":"))
