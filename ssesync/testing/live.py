"""live_stream: an application on a real server, and a real client that reads its stream."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterable, Iterator
from socketserver import ThreadingMixIn
from typing import TYPE_CHECKING, Any
from urllib.parse import urljoin
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

import requests

from ..client.reader import Reader
from ..event import Event
from ..locks import Once
from ..wire.http import is_event_stream, set_last_event_id
from .frameworks import SharedConnections, application_of
from .stream import MARK, OpenStream

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

__all__ = ["live_stream"]

_CLOSE = f"{MARK}.close"


def live_stream(
    app: Any,
    url: str = "/",
    *,
    timeout: float = 5.0,
    last_event_id: str | None = None,
    method: str = "GET",
    session: requests.Session | None = None,
    **request_options: Any,
) -> OpenStream:
    """Serve an application on 127.0.0.1, by a real server with real sockets, and read a stream of it.

    Slower than :func:`open_stream`, by some milliseconds, and closer to production: ``requests`` sends the request, a
    :class:`ssesync.Reader` reads, ``disconnect()`` closes the socket, and after ``stall()`` the producer has to wait as
    soon as the kernel's buffers are full, which may be megabytes later. The server is Werkzeug's if it is installed,
    else the standard library's, with a thread for each request. It runs until the end of the stream's ``with`` block.

    :param app: a WSGI application, or a test client, whose application is served.
    :param url: path and query.
    :param timeout: seconds that each wait for the stream may take by default.
    :param last_event_id: the ``Last-Event-ID`` of the request; ``None`` and ``""``: none.
    :param method: the method of the request.
    :param session: sends the request; without it a session that uses no proxies.
    :param request_options: other options of ``requests.request``: ``headers``, ``params``, ``data``, ``json``, ….
    :return: the stream, as soon as its headers have arrived.
    :raises WaitTimeout: there was no answer within ``timeout``.
    :raises TypeError: this is no application.
    """
    stream = _LiveStream(f"{method} {url}", timeout, application_of(app))
    headers = dict(request_options.pop("headers", None) or {})
    if not any(name.lower() == "accept" for name in headers):
        headers["Accept"] = "text/event-stream"
    if last_event_id:
        set_last_event_id(headers, last_event_id)
    try:
        stream._begin(session, method, url, headers=headers, **request_options)
    except BaseException:
        stream.close()
        raise
    return stream


class _LiveStream(OpenStream):
    def __init__(self, name: str, timeout: float, app: WSGIApplication) -> None:
        super().__init__(name, timeout)
        self._app = app
        self._reader: Reader | None = None
        self._response: requests.Response | None = None
        self._connections = SharedConnections()
        self._stopping = Once()
        self._server = _make_server(self._watched)
        self._serving = threading.Thread(
            target=self._server.serve_forever, args=(0.02,), name="ssesync-live-server", daemon=True
        )
        self._serving.start()
        #: The server's address.
        self.base_url = f"http://127.0.0.1:{self._server.server_port}/"

    def _begin(self, session: requests.Session | None, method: str, url: str, **options: Any) -> None:
        def run() -> None:
            error: BaseException | None = None
            try:
                with contextlib.ExitStack() as stack:
                    used = session or stack.enter_context(requests.Session())
                    if session is None:
                        used.trust_env = False
                    target = urljoin(self.base_url, url.lstrip("/"))
                    self._read(stack.enter_context(used.request(method, target, stream=True, **options)))
            except BaseException as raised:
                error = raised
            finally:
                self._end(error)

        threading.Thread(target=run, name="ssesync-live-stream", daemon=True).start()
        self._wait_for_answer()

    def _read(self, response: requests.Response) -> None:
        stream = response.status_code == 200 and is_event_stream(response.headers.get("Content-Type"))
        self._response = response
        if stream:
            self._reader = Reader(response, on_comment=self._comment)
        self._answer(f"{response.status_code} {response.reason}", list(response.headers.items()))
        if self._left:  # checked after the reader is set; _leave(), on another thread, takes the two steps in reverse
            self._cut()
        elif self._reader is None:
            for chunk in response.iter_content(65536):
                self._received.keep(chunk)
        else:
            for event in self._reader:
                if not self._may_read():
                    return
                self._add([event], self._reader.last_event_id, self._reader.retry)
            self._add([], self._reader.last_event_id, self._reader.retry)

    def _comment(self, text: str) -> None:
        if self._may_read() and self._reader is not None:
            self._add([Event(comment=text)], self._reader.last_event_id, self._reader.retry)

    def _leave(self) -> None:
        super()._leave()
        self._cut()

    def _cut(self) -> None:
        if self._reader is not None:
            self._reader.close()
        elif self._response is not None:
            self._response.close()

    def close(self) -> None:
        """Leave, and stop the server."""
        super().close()
        if not self._stopping():
            return  # another call does the rest; this one may be a signal handler's that has interrupted it
        self._server.shutdown()
        self._serving.join(self.timeout)
        self._server.server_close()
        self._connections.end()

    def _watched(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Call the application. The returned body notices that the server closes it."""
        self._closed = False  # an earlier answer, a redirect, was closed
        with contextlib.ExitStack() as stack:
            stack.callback(self._body_closed)
            stack.enter_context(self._connections.on_this_thread())
            environ[MARK] = self
            body = self._app(environ, start_response)
            self._find_event_stream()
            close = getattr(body, "close", None)
            if close is not None:
                stack.callback(close)
            watched = _Watched(self, body, stack.pop_all())
            environ[_CLOSE] = watched.close
            return watched


class _Watched:
    def __init__(self, stream: _LiveStream, body: Iterable[bytes], stack: contextlib.ExitStack) -> None:
        self._stream = stream
        self._body = iter(body)
        self.close = stack.close

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        chunk = next(self._body)
        self._stream._find_event_stream()
        return chunk


def _make_server(app: WSGIApplication) -> Any:
    try:
        from werkzeug.serving import WSGIRequestHandler as WerkzeugHandler
        from werkzeug.serving import make_server as make_werkzeug
    except ImportError:
        return make_server("127.0.0.1", 0, app, _ThreadingServer, _QuietHandler)

    class Handler(WerkzeugHandler):
        def run_wsgi(self) -> None:
            """Always close the body. Werkzeug 3.1 does not if the client has reset the connection."""
            try:
                super().run_wsgi()
            finally:
                self.environ.get(_CLOSE, bool)()

        def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
            """Log nothing."""

    server = make_werkzeug("127.0.0.1", 0, app, threaded=True, request_handler=Handler)
    server.daemon_threads = True  # type: ignore[attr-defined]
    return server


class _ThreadingServer(ThreadingMixIn, WSGIServer):
    daemon_threads = True


class _QuietHandler(WSGIRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        """Log nothing."""
