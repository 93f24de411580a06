"""The sessions that this library makes: their connections skip interim responses, and report their sockets."""

from __future__ import annotations

import contextvars
import os
import socket
import ssl
from collections.abc import Callable
from http.cookiejar import DefaultCookiePolicy
from pathlib import Path
from typing import Any

import requests
from requests.adapters import HTTPAdapter
from requests.utils import DEFAULT_CA_BUNDLE_PATH
from urllib3 import connection, connectionpool
from urllib3.util.ssl_ import create_urllib3_context

from .transport import FinalResponse, is_urllib3

__all__ = ["Adapter", "new_session", "on_connection", "shared_session"]

#: Called with the socket of each connection that a request uses, in the context in which the request is made.
on_connection: contextvars.ContextVar[Callable[[socket.socket], None] | None] = contextvars.ContextVar(
    "ssesync_on_connection", default=None
)


def new_session(**options: Any) -> requests.Session:
    """Make a session.

    :param options: of its adapters.
    :return: a session whose connections skip interim responses and call :data:`on_connection`. If another package is
        in urllib3's place it is a plain one: then, as with a session of the caller's, the thread of a connection
        attempt still runs for a while after the source was closed.
    """
    session = requests.Session()
    if is_urllib3():
        session.mount("http://", Adapter(**options))
        session.mount("https://", Adapter(**options))
    return session


def shared_session() -> requests.Session:
    """Get this process's session for requests without one.

    :return: the session. It stores no cookies: they would be those of other clients' requests.
    """
    if not _shared:
        session = new_session(pool_maxsize=_SHARED_POOL)
        session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
        _shared.append(session)  # no lock: the first one counts
    return _shared[0]


_shared: list[requests.Session] = []
# Connections of one host that its pool keeps; urllib3 warns of each that is one too many.
_SHARED_POOL = 1000
# By ``verify`` and ``cert``, and the times of the last changes of the files.
_contexts: dict[object, ssl.SSLContext] = {}
# An application has one or two.
_MOST_CONTEXTS = 16


def _context(verify: bool | str, cert: Any) -> ssl.SSLContext:
    """Get the common TLS context of all connections with these options.

    :raises OSError: there is no such file.
    """
    bundle = (DEFAULT_CA_BUNDLE_PATH if verify is True else str(verify)) if verify else ""
    files = tuple(str(part) for part in (cert if isinstance(cert, tuple) else (cert,)) if part)
    key = (bundle, files, tuple(Path(path).stat().st_mtime_ns for path in (bundle, *files) if path))
    context = _contexts.get(key)
    if context is None:
        context = create_urllib3_context()
        if bundle:
            context.load_verify_locations(**{"capath" if Path(bundle).is_dir() else "cafile": bundle})
        else:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        if files:
            context.load_cert_chain(*files)
        while len(_contexts) >= _MOST_CONTEXTS:
            _contexts.pop(next(iter(_contexts)), None)
        _contexts[key] = context
    return context


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_shared.clear)  # its connections are the parent's


class _Reporting:
    """A connection that reports its socket before the wait for a response: when it is made, and when it is used again
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


class Adapter(HTTPAdapter):
    """The adapter of this library's sessions.

    urllib3 makes a TLS context for each connection, and loads all certificates of the authorities into it: 732 kB and
    20 ms. Here connections with the same ``verify`` and ``cert`` share a context: 42 kB and 2 ms each.
    """

    def build_connection_pool_key_attributes(
        self, request: requests.PreparedRequest, verify: bool | str, cert: Any = None
    ) -> tuple[Any, Any]:
        """See requests, which has this since 2.32."""
        host, options = super().build_connection_pool_key_attributes(request, verify, cert)
        if host.get("scheme") == "https":
            required = options.get("cert_reqs")
            options = {"cert_reqs": required, "ssl_context": _context(verify, cert)}
        return host, options

    def cert_verify(self, conn: Any, url: str, verify: Any, cert: Any) -> None:
        """See requests. The context has these options already."""
        if "ssl_context" not in getattr(conn, "conn_kw", {}):
            super().cert_verify(conn, url, verify, cert)  # type: ignore[no-untyped-call]

    def init_poolmanager(self, *args: Any, **options: Any) -> None:
        """See requests."""
        super().init_poolmanager(*args, **options)
        _use_our_pools(self.poolmanager)

    def proxy_manager_for(self, proxy: str, **options: Any) -> Any:
        """See requests."""
        manager = super().proxy_manager_for(proxy, **options)
        if not proxy.lower().startswith("socks"):  # whose connections are of another class
            _use_our_pools(manager)
        return manager

    def close(self) -> None:
        """See requests."""
        # urllib3 drops its pools and leaves their connections to the garbage collector, but a response with a reference
        # (an error has one) keeps its pool alive.
        for manager in (self.poolmanager, *self.proxy_manager.values()):
            for key in list(manager.pools.keys()):
                pool = manager.pools.get(key)
                if pool is not None:
                    pool.close()
        super().close()


def _use_our_pools(manager: Any) -> None:
    manager.pool_classes_by_scheme = {"http": HTTPConnectionPool, "https": HTTPSConnectionPool}
