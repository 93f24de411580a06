"""One request, made on a thread of its own, so that whoever waits for its answer can be told to stop at any moment.

A name look-up, a connection being made and a server that thinks before it answers can't be woken from outside: the
thread that waits for them is left behind. It ends by the request's own timeouts, and closes what it may still get.
On a session of our own its connection is shut as well, through a duplicate of the descriptor, and so it ends at once.
"""

from __future__ import annotations

import contextvars
import os
import socket
import threading
from collections.abc import Callable
from typing import Any

import requests
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

from ..cancel import CancelToken

__all__ = ["Attempt", "new_session"]

_current: contextvars.ContextVar[Attempt | None] = contextvars.ContextVar("ssesync_attempt", default=None)


class Attempt:
    """Runs ``send`` at once, on a thread of its own and with the caller's context variables."""

    def __init__(self, send: Callable[[], requests.Response]) -> None:
        self._send = send
        self._lock = threading.Lock()
        self._settled = threading.Event()
        self._abandoned = False
        self._response: requests.Response | None = None
        self._error: BaseException | None = None
        self._handle: socket.socket | None = None
        context = contextvars.copy_context()
        context.run(_current.set, self)
        threading.Thread(target=context.run, args=(self._run,), name="ssesync-connect", daemon=True).start()

    def result(self, token: CancelToken) -> requests.Response | None:
        """Wait for the answer; ``None`` as soon as the token is set. What the request raised is raised."""
        token.add_callback(self._settled.set)
        try:
            self._settled.wait()
        finally:
            token.remove_callback(self._settled.set)
            # Also when an exception, such as Ctrl-C's, ends the wait.
            response = self._take(token.is_set() or not self._settled.is_set())
        if self._error is not None and not self._abandoned:
            raise self._error
        return response

    def sees(self, connection: socket.socket) -> None:
        """The request goes over this connection now. Called by the connections of :func:`new_session`."""
        with self._lock:
            self._drop_handle()
            try:
                self._handle = socket.socket(fileno=os.dup(connection.fileno()))
            except OSError:
                return  # closed already: the request is about to fail
            if self._abandoned:
                self._shut()

    def _run(self) -> None:
        try:
            response, error = self._send(), None
        except BaseException as raised:
            response, error = None, raised
        with self._lock:
            self._drop_handle()
            self._response, self._error = response, error
            too_late = self._abandoned
        self._settled.set()
        if too_late and response is not None:
            response.close()

    def _take(self, abandon: bool) -> requests.Response | None:
        with self._lock:
            response, self._response = self._response, None
            self._abandoned = abandon
            if abandon:
                self._shut()
        if abandon and response is not None:
            response.close()
            return None
        return response

    def _shut(self) -> None:
        if self._handle is not None:
            try:
                self._handle.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass  # not connected yet, or no more

    def _drop_handle(self) -> None:
        handle, self._handle = self._handle, None
        if handle is not None:
            handle.close()


def new_session() -> requests.Session:
    """A session whose connections show themselves to the attempt that they serve."""
    session = requests.Session()
    session.mount("http://", _Adapter())
    session.mount("https://", _Adapter())
    return session


class _Seen:
    """A connection, before it is waited for: when it is made, and when it is used again for another answer."""

    sock: Any

    def _new_conn(self) -> socket.socket:
        connection: socket.socket = super()._new_conn()  # type: ignore[misc]
        _show(connection)
        return connection

    def getresponse(self) -> Any:
        _show(self.sock)
        return super().getresponse()  # type: ignore[misc]


def _show(connection: socket.socket | None) -> None:
    attempt = _current.get()
    if attempt is not None and connection is not None:
        attempt.sees(connection)


class _HTTPConnection(_Seen, HTTPConnection):
    pass


class _HTTPSConnection(_Seen, HTTPSConnection):
    pass


class _HTTPPool(HTTPConnectionPool):
    ConnectionCls = _HTTPConnection


class _HTTPSPool(HTTPSConnectionPool):
    ConnectionCls = _HTTPSConnection


class _Adapter(HTTPAdapter):
    def init_poolmanager(self, *args: Any, **options: Any) -> None:
        super().init_poolmanager(*args, **options)
        _use_our_pools(self.poolmanager)

    def proxy_manager_for(self, proxy: str, **options: Any) -> Any:
        manager = super().proxy_manager_for(proxy, **options)
        if not proxy.lower().startswith("socks"):  # whose connections are of another kind
            _use_our_pools(manager)
        return manager


def _use_our_pools(manager: Any) -> None:
    manager.pool_classes_by_scheme = {"http": _HTTPPool, "https": _HTTPSPool}
