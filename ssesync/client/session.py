"""The sessions that this library makes: their connections skip interim responses, and report their sockets."""

from __future__ import annotations

import contextvars
import socket
from collections.abc import Callable
from typing import Any

import requests
from requests.adapters import HTTPAdapter
from urllib3 import connection, connectionpool

from .transport import FinalResponse, is_urllib3

__all__ = ["new_session", "on_connection"]

#: Called with the socket of each connection that a request uses, in the context in which the request is made.
on_connection: contextvars.ContextVar[Callable[[socket.socket], None] | None] = contextvars.ContextVar(
    "ssesync_on_connection", default=None
)


def new_session() -> requests.Session:
    """Make a session.

    :return: a session whose connections skip interim responses and call :data:`on_connection`. Where another package
        is in urllib3's place it is a plain one, and closing a source that is connecting leaves a thread behind, as
        with a session of the caller's.
    """
    session = requests.Session()
    if is_urllib3():
        session.mount("http://", _Adapter())
        session.mount("https://", _Adapter())
    return session


class _Reporting:
    """A connection that reports its socket before a response is waited for: when it is made, and when it is used again
    for another request."""

    response_class: Any = FinalResponse
    sock: Any

    def _new_conn(self) -> socket.socket:
        sock: socket.socket = super()._new_conn()  # type: ignore[misc]
        _report(sock)
        return sock

    def putrequest(self, *args: Any, **options: Any) -> None:
        _report(self.sock)
        super().putrequest(*args, **options)  # type: ignore[misc]


def _report(sock: socket.socket | None) -> None:
    callback = on_connection.get()
    if callback is not None and sock is not None:
        callback(sock)


# Named as the classes that they extend, since their names are in error messages.


class HTTPConnection(_Reporting, connection.HTTPConnection):
    """A connection that reports its socket."""


class HTTPSConnection(_Reporting, connection.HTTPSConnection):
    """A connection over TLS that reports its socket."""


class HTTPConnectionPool(connectionpool.HTTPConnectionPool):
    """A pool of connections that report their sockets."""

    ConnectionCls = HTTPConnection  # pyright: ignore[reportAssignmentType]  # urllib3's classes don't match its protocol


class HTTPSConnectionPool(connectionpool.HTTPSConnectionPool):
    """A pool of connections over TLS that report their sockets."""

    ConnectionCls = HTTPSConnection  # pyright: ignore[reportAssignmentType]


class _Adapter(HTTPAdapter):
    def init_poolmanager(self, *args: Any, **options: Any) -> None:
        super().init_poolmanager(*args, **options)
        _use_our_pools(self.poolmanager)

    def proxy_manager_for(self, proxy: str, **options: Any) -> Any:
        manager = super().proxy_manager_for(proxy, **options)
        if not proxy.lower().startswith("socks"):  # whose connections are of another class
            _use_our_pools(manager)
        return manager

    def close(self) -> None:
        # urllib3 forgets its pools and leaves their connections to the garbage collector, but a response that is kept
        # (an error has one) keeps its pool.
        for manager in (self.poolmanager, *self.proxy_manager.values()):
            for key in list(manager.pools.keys()):
                pool = manager.pools.get(key)
                if pool is not None:
                    pool.close()
        super().close()


def _use_our_pools(manager: Any) -> None:
    manager.pool_classes_by_scheme = {"http": HTTPConnectionPool, "https": HTTPSConnectionPool}
