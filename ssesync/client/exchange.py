"""One request to an upstream in three steps, so that no thread waits for the upstream's answer.

A thread connects and sends the request; the reactor waits until the connection is readable; and a thread reads the
head. requests does all of that in one call. So its parts are used one by one, if the adapter and the connections are
those of requests and urllib3 2 and no proxy is in between. Otherwise the first step is the whole call, on a thread of
the executor.

Redirects are not followed. There are no retries, as with requests.
"""

from __future__ import annotations

import socket
from typing import Any

import requests
import urllib3.exceptions
from requests.adapters import HTTPAdapter
from requests.cookies import extract_cookies_to_jar
from requests.utils import select_proxy
from urllib3.connection import HTTPConnection

from ..errors import ConnectionLost, IdleTimeout
from ..locks import make_lock
from .forwarding import Forwarded
from .session import Adapter, shared_session
from .transport import duplicate, is_urllib3

__all__ = ["Exchange"]

# The options that are part of the request; the others are for sending it.
_OF_REQUEST = ("auth", "cookies", "data", "files", "hooks", "json", "params")


class Exchange:
    """See the module. :meth:`send`, then :meth:`receive`; :meth:`close` from any thread, any number of times.

    :param asked: the request.
    """

    def __init__(self, forwarded: Forwarded) -> None:
        session = forwarded.session or shared_session()
        forwarded.options.setdefault("allow_redirects", False)
        self._session = session
        self._forwarded = forwarded._replace(session=session)
        # On the view's thread: the view raises for an invalid URL, and an auth object may need its request.
        options = {name: value for name, value in forwarded.options.items() if name in _OF_REQUEST}
        self._request = session.prepare_request(
            requests.Request(forwarded.method.upper(), forwarded.url, headers=forwarded.headers, **options)
        )
        self._lock = make_lock("client.attempt")
        self._response: requests.Response | None = None
        self._pool: Any = None
        self._connection: Any = None
        self._adapter: Any = None
        self._handle: socket.socket | None = None
        #: Whether the response is no longer needed.
        self.closed = False
        timeout = forwarded.options.get("timeout")
        self._connect_timeout, self._read_timeout = timeout if isinstance(timeout, tuple) else (timeout, timeout)

    @property
    def url(self) -> str:
        """The upstream's address."""
        return str(self._request.url)

    @property
    def idle_timeout(self) -> float | None:
        """Seconds to wait for the head."""
        timeout: float | None = self._read_timeout
        return timeout

    def send(self) -> int:
        """Connect, and send the request. This may wait.

        :return: the descriptor that is readable when the response arrives; -1: it has arrived.
        :raises TimeoutError: the upstream takes too long.
        :raises Exception: errors of requests and urllib3.
        """
        try:
            return self._send()
        except (requests.Timeout, urllib3.exceptions.TimeoutError) as error:
            if isinstance(error, urllib3.exceptions.NewConnectionError):
                raise  # which is one of them, and no timeout
            raise IdleTimeout(f"no answer within the timeout: {error}") from error

    def _send(self) -> int:
        if self.closed:
            raise ConnectionLost("the response is no longer needed")
        request, get = self._request, self._forwarded.options.get
        url = str(request.url)
        settings = self._session.merge_environment_settings(
            url, get("proxies") or {}, get("stream"), get("verify"), get("cert")
        )
        adapter = self._session.get_adapter(url)
        by_itself = any(request.hooks.values()) or select_proxy(url, settings["proxies"]) or get("allow_redirects")
        if by_itself or not self._is_known(adapter) or _is_other(get("timeout")):
            self._response = self._forwarded.send()
            return -1
        pool: Any = adapter.get_connection_with_tls_context(  # type: ignore[attr-defined]
            request, settings["verify"], proxies=settings["proxies"], cert=settings["cert"]
        )
        adapter.cert_verify(pool, url, settings["verify"], settings["cert"])  # type: ignore[attr-defined]
        connection = pool._get_conn(timeout=self._connect_timeout)
        try:
            if not isinstance(connection, HTTPConnection):
                raise ConnectionLost(f"the connection is of another class: {type(connection).__name__}")
            connection.timeout = self._connect_timeout
            if connection.is_closed:
                connection.connect()
            sock: Any = connection.sock
            sock.settimeout(self._connect_timeout)
            with self._lock:
                self._handle = duplicate(sock)
            connection.request(
                str(request.method), adapter.request_url(request, {}),  # type: ignore[attr-defined]
                body=request.body, headers=request.headers,
                chunked=bool(request.body) and "Content-Length" not in request.headers,
                preload_content=False, decode_content=False,
            )  # fmt: skip
            connection.timeout = self._read_timeout  # getresponse() sets it on the socket
        except BaseException:
            self._give_back(pool, connection)
            raise
        self._adapter, self._pool, self._connection = adapter, pool, connection
        if self.closed:
            self.close()
        return int(sock.fileno())

    def receive(self) -> requests.Response:
        """Read the head, after the earlier steps, if they were not done. This may wait.

        :return: the response, with the upstream's status.
        :raises Exception: errors of requests and urllib3.
        """
        if self._response is None and self._connection is None:
            self._response = self._forwarded.send()
        if self._response is not None:
            return self._response
        pool, connection, self._connection = self._pool, self._connection, None
        assert connection is not None  # send() has left one of the two
        try:
            raw = connection.getresponse()
        except BaseException:
            self._give_back(pool, connection)
            raise
        finally:
            self._drop_handle()
        raw._pool, raw._connection = pool, connection
        response: requests.Response = self._adapter.build_response(self._request, raw)
        extract_cookies_to_jar(self._session.cookies, self._request, raw)  # type: ignore[no-untyped-call]
        self._response = response
        return response

    def close(self) -> None:
        """End the connection at once, and with it the step of another thread."""
        self.closed = True
        with self._lock:
            if self._handle is not None:
                try:
                    self._handle.shutdown(socket.SHUT_RDWR)
                except OSError:
                    pass  # the peer has closed it already

    def discard(self) -> None:
        """Release all resources, if the response is not read. No thread runs a step any more."""
        self.close()
        connection, self._connection = self._connection, None
        if connection is not None:
            self._give_back(self._pool, connection)
        if self._response is not None:
            self._response.close()

    def _give_back(self, pool: Any, connection: Any) -> None:
        """Return the closed connection to its pool, which connects it anew for another request."""
        self._drop_handle()
        connection.close()
        pool._put_conn(connection)

    def _drop_handle(self) -> None:
        with self._lock:
            handle, self._handle = self._handle, None
        if handle is not None:
            handle.close()

    @staticmethod
    def _is_known(adapter: Any) -> bool:
        return (
            type(adapter) in (HTTPAdapter, Adapter)
            and is_urllib3()
            and hasattr(HTTPConnection, "is_closed")  # urllib3 2
            and hasattr(HTTPAdapter, "get_connection_with_tls_context")
        )


def _is_other(timeout: Any) -> bool:
    """Whether a timeout is not a number or two, for example an object of urllib3's."""
    parts = timeout if isinstance(timeout, tuple) else (timeout,)
    return len(parts) > 2 or not all(part is None or isinstance(part, (int, float)) for part in parts)
