"""Requests by each framework's test client, or without one: the application to call, and its environ.

No framework is imported unless it is loaded already, as it is if the caller passes one of its objects.
"""

from __future__ import annotations

import contextlib
import copy
import io
import json as _json
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote_to_bytes, urlencode, urlsplit

from ..wire.http import MEDIA_TYPE, set_last_event_id

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

__all__ = ["SharedConnections", "application_of", "request_by"]

#: Serves one request: called with an application and its environ, it returns the status line and the headers.
Serve = Callable[["WSGIApplication", "WSGIEnvironment"], tuple[str, list[tuple[str, str]]]]


def application_of(app_or_client: Any) -> WSGIApplication:
    """The WSGI application itself.

    :param app_or_client: an application, or a test client that has one.
    :return: the application.
    :raises TypeError: it is neither.
    """
    if _is(app_or_client, "django.test.client", "Client"):
        from django.core.handlers.wsgi import WSGIHandler

        return WSGIHandler()
    if _is(app_or_client, "werkzeug.test", "Client"):
        return app_or_client.application  # type: ignore[no-any-return]
    if callable(app_or_client):
        return app_or_client  # type: ignore[no-any-return]
    raise TypeError(
        "expected a WSGI application, or a test client of Flask, Django or Werkzeug, got "
        f"{type(app_or_client).__name__}"
    )


def request_by(app_or_client: Any, url: str, serve: Serve, *, last_event_id: str | None = None, **options: Any) -> None:
    """Make a request as the client makes it, cookies included, and serve it by ``serve``.

    :param app_or_client: an application, or a test client.
    :param url: path and query, or a whole URL.
    :param serve: serves the request.
    :param last_event_id: the ``Last-Event-ID`` of the request.
    :param options: the options of the client.
    :raises TypeError: an option that the client does not take.
    """
    headers: dict[str, str] = {"Accept": MEDIA_TYPE}
    given = options.pop("headers", None) or {}
    headers.update(given.items() if isinstance(given, Mapping) else given)
    if last_event_id:
        set_last_event_id(headers, last_event_id)
    options["headers"] = headers
    if _is(app_or_client, "django.test.client", "Client"):
        _by_django(app_or_client, url, serve, **options)
    elif _is(app_or_client, "flask", "Flask"):
        _by_werkzeug(app_or_client.test_client(), url, serve, **options)
    elif _is(app_or_client, "werkzeug.test", "Client"):
        _by_werkzeug(app_or_client, url, serve, **options)
    else:
        app = application_of(app_or_client)
        serve(app, _environ(url, **options))


def _is(thing: Any, module: str, name: str) -> bool:
    kind = getattr(sys.modules.get(module), name, None)
    return kind is not None and isinstance(thing, kind)


class _Standin:
    """Replaces a Werkzeug client's application: the client makes the environ, and stores the answer's cookies."""

    def __init__(self, application: Any, serve: Serve) -> None:
        self._application = application
        self._serve = serve

    def __getattr__(self, name: str) -> Any:
        return getattr(self._application, name)

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        start_response(*self._serve(self._application, environ))
        return []


def _by_werkzeug(client: Any, url: str, serve: Serve, **options: Any) -> None:
    client = copy.copy(client)
    client.application = _Standin(client.application, serve)
    client.open(url, **options)


class _Captured(Exception):
    """Carries an environ out of Django's client."""


def _by_django(client: Any, url: str, serve: Serve, *, method: str = "GET", json: Any = None, **options: Any) -> None:
    from django.core.handlers.wsgi import WSGIHandler
    from django.core.signals import got_request_exception

    def capture(environ: WSGIEnvironment) -> Any:
        raise _Captured(environ)

    if json is not None:
        options |= {"data": _json.dumps(json), "content_type": "application/json"}
    probe = copy.copy(client)
    probe.handler = capture
    make = getattr(probe, method.lower(), None)
    try:
        if method.upper() in ("GET", "POST", "HEAD", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE") and make is not None:
            make(url, **options)
        else:
            probe.generic(method, url, **options)
    except _Captured as captured:
        environ = captured.args[0]
    else:
        raise AssertionError("the test client has called no handler")
    # The client's payload can't be read past its end, and because of its type the views would run in the test's thread.
    environ["wsgi.input"] = io.BytesIO(environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0)))
    raised: list[BaseException] = []

    class Handler(WSGIHandler):
        def get_response(self, request: Any) -> Any:
            request._dont_enforce_csrf_checks = not client.handler.enforce_csrf_checks
            return super().get_response(request)

    def keep(sender: Any, request: Any = None, **kwargs: Any) -> None:
        if request is not None and request.META is environ:
            raised.append(sys.exc_info()[1] or RuntimeError("the view failed"))

    got_request_exception.connect(keep)
    try:
        _, headers = serve(Handler(), environ)
    finally:
        got_request_exception.disconnect(keep)
    for name, value in headers:
        if name.lower() == "set-cookie":
            client.cookies.load(value)
    if raised and client.raise_request_exception:
        raise raised[0]


def _environ(
    url: str,
    *,
    method: str = "GET",
    headers: Mapping[str, str],
    query: Mapping[str, Any] | str | None = None,
    data: str | bytes | Mapping[str, Any] | None = None,
    json: Any = None,
    environ: Mapping[str, Any] | None = None,
) -> WSGIEnvironment:
    parts = urlsplit(url)
    content_type = ""
    if json is not None:
        data, content_type = _json.dumps(json), "application/json"
    elif isinstance(data, Mapping):
        data, content_type = urlencode(data, doseq=True), "application/x-www-form-urlencoded"
    body = data.encode() if isinstance(data, str) else data or b""
    if query is not None and not isinstance(query, str):
        query = urlencode(query, doseq=True)
    made: WSGIEnvironment = {
        "REQUEST_METHOD": method,
        "SCRIPT_NAME": "",
        "PATH_INFO": unquote_to_bytes(parts.path or "/").decode("latin-1"),
        "QUERY_STRING": "&".join(filter(None, (parts.query, query))),
        "SERVER_NAME": parts.hostname or "localhost",
        "SERVER_PORT": str(parts.port or (443 if parts.scheme == "https" else 80)),
        "SERVER_PROTOCOL": "HTTP/1.1",
        "REMOTE_ADDR": "127.0.0.1",
        "HTTP_HOST": parts.netloc or "localhost",
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": parts.scheme or "http",
        "wsgi.input": io.BytesIO(body),
        "wsgi.errors": sys.stderr,
    }
    if body:
        made["CONTENT_LENGTH"] = str(len(body))
    if content_type:
        made["CONTENT_TYPE"] = content_type
    for name, value in headers.items():
        key = name.upper().replace("-", "_")
        made[key if key in ("CONTENT_TYPE", "CONTENT_LENGTH") else f"HTTP_{key}"] = value
    made.update(environ or {})
    return made


class SharedConnections:
    """Shares Django's database connections of the test's thread with the threads that serve it.

    It shares those with data that no other connection sees: in an atomic block (``TestCase``, pytest-django's ``db``),
    or SQLite's in memory. Made on the test's thread. Without Django it does nothing.
    """

    def __init__(self) -> None:
        self._shared: list[Any] = []
        if "django.db" in sys.modules:
            from django.conf import settings
            from django.db import connections

            if settings.configured:
                self._shared = [each for each in connections.all(initialized_only=True) if _only_here(each)]
        for connection in self._shared:
            connection.inc_thread_sharing()

    @contextlib.contextmanager
    def on_this_thread(self) -> Iterator[None]:
        """Use them on this thread within the ``with`` block, whose end closes the thread's own connections."""
        if "django.db" not in sys.modules:
            yield
            return
        from django.db import connections

        shared = self._shared.copy()
        for connection in shared:
            connections[connection.alias] = connection
        try:
            yield
        finally:
            for connection in shared:
                del connections[connection.alias]
            for connection in connections.all(initialized_only=True):
                connection.close()

    def end(self) -> None:
        """End the sharing. Any number of times."""
        while self._shared:
            try:
                connection = self._shared.pop()
            except IndexError:
                return  # another thread has the last one
            connection.dec_thread_sharing()


def _only_here(connection: Any) -> bool:
    in_memory = connection.vendor == "sqlite" and connection.is_in_memory_db()
    return bool(connection.in_atomic_block or (in_memory and connection.connection is not None))
