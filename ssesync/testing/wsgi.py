"""open_stream: an application served to one test by a thread that acts as a WSGI server."""

from __future__ import annotations

import contextvars
import socket
import threading
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from ..wire.decoder import Decoder
from .frameworks import SharedConnections, request_by
from .stream import MARK, OpenStream

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication, WSGIEnvironment

__all__ = ["open_stream"]


def open_stream(
    app_or_client: Any,
    url: str = "/",
    *,
    timeout: float = 5.0,
    last_event_id: str | None = None,
    **request_options: Any,
) -> OpenStream:
    """Request a stream from an application, without a server between, and serve it in a thread.

    ::

        with open_stream(app, "/clock") as stream:
            assert stream.next().type == "tick"
            stream.disconnect()
            assert stream.reason == "client_gone"

    The whole request, view and middleware too, runs in a thread of its own, in a copy of the test's context
    (``contextvars``). Unlike under the frameworks' own test clients, producers run as they do when served: in a
    thread, with keep-alives, back-pressure and a client that can leave; so an endless view is no different. Django's
    database connections with the test's transaction are shared with these threads: don't use them in the test while
    the view does.

    :param app_or_client: a Flask application; a test client of Flask, Django or Werkzeug, whose cookies, defaults and
        login are used; or any WSGI application, for example an :class:`ssesync.EventStream`.
    :param url: path and query, or a whole URL.
    :param timeout: seconds that each wait for the stream may take by default.
    :param last_event_id: the ``Last-Event-ID`` of the request; ``None`` and ``""``: none.
    :param request_options: the options of the client's own ``open()`` (Flask, Werkzeug) or ``get()``, ``post()``, …
        (Django); ``method`` and ``json`` everywhere. For a bare WSGI application: ``method``, ``headers``, ``query``,
        ``data`` (text, bytes, or a form as a mapping), ``json``, ``environ`` (more keys). ``Accept`` is
        ``text/event-stream`` unless it is among ``headers``.
    :return: the stream, as soon as its headers have arrived.
    :raises WaitTimeout: there was no answer within ``timeout``.
    :raises Exception: the exception that the application raised instead of answering; that of a Django view, unless
        the client was made with ``raise_request_exception=False``.
    :raises TypeError: this is no application and no client.
    """
    opened: list[_ServedStream] = []
    name = f"{str(request_options.get('method', 'GET')).upper()} {url}"

    def serve(app: WSGIApplication, environ: WSGIEnvironment) -> tuple[str, list[tuple[str, str]]]:
        while opened:
            opened.pop().close()  # the client follows a redirect
        stream = _ServedStream(name, timeout, app, environ)
        opened.append(stream)
        return stream._begin()

    try:
        request_by(app_or_client, url, serve, last_event_id=last_event_id, **request_options)
    except BaseException:
        for stream in opened:
            stream.close()
        raise
    return opened[0]


class _ServedStream(OpenStream):
    def __init__(self, name: str, timeout: float, app: WSGIApplication, environ: WSGIEnvironment) -> None:
        super().__init__(name, timeout)
        self._app = app
        self._decoder = Decoder(comments=True, retry_on_events=True)
        self._head: tuple[str, list[tuple[str, str]]] | None = None
        # A connection without bytes, in place of Werkzeug's: on the server's end the library notices that the client
        # leaves, and cuts off a stalled one.
        self._ours, self._servers = socket.socketpair()
        self._ours.setblocking(False)
        self._environ = environ
        environ |= {
            MARK: self,
            "SERVER_SOFTWARE": "ssesync.testing",
            "werkzeug.socket": self._servers,
            "wsgi.multithread": True,
            "wsgi.multiprocess": False,
            "wsgi.run_once": False,
        }
        self._connections = SharedConnections()

    def _begin(self) -> tuple[str, list[tuple[str, str]]]:
        run = contextvars.copy_context().run
        threading.Thread(target=run, args=(self._run,), name="ssesync-open-stream", daemon=True).start()
        self._wait_for_answer()
        return self._received.status, list(self._received.headers.items())

    def _run(self) -> None:
        error: BaseException | None = None
        try:
            with self._connections.on_this_thread():
                self._serve()
        except BaseException as raised:
            error = raised
        finally:
            self._connections.end()
            self._end(error)
            self._body_closed()
            self._servers.close()
            self._ours.close()

    def _serve(self) -> None:
        body: Iterable[bytes] = ()
        try:
            body = self._app(self._environ, self._start_response)
            self._find_event_stream()
            for chunk in body:
                self._find_event_stream()
                if chunk and not self._send(chunk):
                    return
            if not self._answered:
                self._send_head()
            self._end()
        finally:
            close = getattr(body, "close", None)
            if close is not None:
                close()

    def _start_response(
        self, status: str, headers: list[tuple[str, str]], exc_info: Any = None, /
    ) -> Callable[[bytes], object]:
        if self._head is not None and exc_info is None:
            raise AssertionError("the application calls start_response twice")
        if self._answered and exc_info is not None:
            raise exc_info[1].with_traceback(exc_info[2])
        self._head = status, list(headers)
        return self._send

    def _send_head(self) -> None:
        if self._head is None:
            raise AssertionError("the application did not call start_response")
        self._answer(*self._head)

    def _send(self, chunk: bytes) -> bool:
        """Pass bytes to the client. Returns False if it has left."""
        # The headers are sent with the first bytes of the body (PEP 3333).
        if not self._answered:
            self._send_head()
        if not self._may_read(self._is_cut):
            self._end(ConnectionResetError("the server cut the connection") if not self._left else None)
            return False
        self._received.keep(chunk)
        if self._received.is_stream:
            events = self._decoder.feed(chunk)
            self._add(events, self._decoder.last_event_id, self._decoder.retry)
        return True

    def _is_cut(self) -> bool:
        try:
            return self._ours.recv(1) == b""
        except BlockingIOError:
            return False
        except OSError:
            return True

    def _leave(self) -> None:
        super()._leave()
        self._ours.close()
