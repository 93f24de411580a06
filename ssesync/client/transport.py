"""The reader and the socket of a response, if its types are known.

The fast method to read a chunked body, and the method to skip an interim response, use private parts of urllib3 and
http.client. Both are used only if every object from the response to the socket has exactly the type that they were
written for. A subclass, a mock or another library in urllib3's place may keep its bytes elsewhere: such a response is
read by its public methods alone.
"""

from __future__ import annotations

import http.client
import io
import os
import socket
import ssl
import weakref
from typing import Any

from urllib3 import connection
from urllib3.response import HTTPResponse

__all__ = [
    "FinalResponse",
    "claim",
    "connection_socket",
    "duplicate",
    "handle_of",
    "is_urllib3",
    "pool_is_held",
    "reader_of",
]

#: More responses of status 1xx than this before the final one are a fault or an attack. A server that sends 102
#: (Processing) every ten seconds has a quarter of an hour.
MOST_INTERIM = 100
# A thread that takes a connection from a pool, or returns one, holds its lock for microseconds.
_POOL_SECONDS = 0.1


class FinalResponse(http.client.HTTPResponse):
    """A response that skips those of status 1xx before it (RFC 9110, section 15.2).

    http.client skips 100 (Continue) alone, and any number of them. 101 (Switching Protocols) is final: the bytes after
    it are not HTTP.
    """

    _interim = 0

    def _read_status(self) -> tuple[str, int, str]:
        while True:
            version, status, reason = super()._read_status()  # type: ignore[misc]
            if not 100 <= status < 200 or status == 101:
                return version, status, reason
            self._interim += 1
            if self._interim > MOST_INTERIM:
                raise http.client.HTTPException(
                    f"more than {MOST_INTERIM} answers of status 1xx arrived before the answer"
                )
            http.client.parse_headers(self.fp)

    def flush(self) -> None:
        """Do nothing: a response is only read. The method of http.client fails if a response and its reader are
        collected together, the reader first, which CPython reports since 3.13."""


def is_urllib3() -> bool:
    """Whether the package of that name is urllib3: urllib3-future, which takes its place, has other connections.

    :return: whether it is.
    """
    return issubclass(connection.HTTPConnection, http.client.HTTPConnection)


def reader_of(raw: Any) -> io.BufferedReader | None:
    """The reader of a urllib3 response.

    :param raw: the response.
    :return: the reader; ``None`` unless every object from the response to the socket has a known type.
    """
    if type(raw) is not HTTPResponse:
        return None
    inner: Any = raw._fp
    if type(inner) not in (http.client.HTTPResponse, FinalResponse):
        return None
    reader = inner.fp
    if type(reader) is not io.BufferedReader or type(reader.raw) is not socket.SocketIO:
        return None
    # Read from the modules now, as gevent replaces these classes.
    known = type(reader.raw._sock) in (socket.socket, ssl.SSLSocket)  # type: ignore[attr-defined]
    return reader if known else None


def connection_socket(raw: Any) -> Any:
    """The socket of a response's connection.

    :param raw: the response.
    :return: the socket, ``None`` if it can't be reached.
    """
    reader = reader_of(raw)
    if reader is not None:
        return reader.raw._sock  # type: ignore[attr-defined]
    return getattr(getattr(raw, "connection", None), "sock", None)


def duplicate(raw: Any) -> socket.socket | None:
    """Duplicate the socket of a connection: a second descriptor, through which the connection can be shut down.

    Not ``server.descriptors.duplicate``: this descriptor is an ordinary one of the process, below the floor.

    :param raw: a response or a socket.
    :return: a socket object of its own; ``None`` if there is no descriptor (a mock, a body already read).
    """
    try:
        copy = os.dup(raw.fileno())
        blocking = os.get_blocking(copy)
        handle = socket.socket(fileno=copy)
        # With socket.setdefaulttimeout() a new socket object does not block, and so the original would not either.
        os.set_blocking(copy, blocking)
    except (AttributeError, OSError, TypeError, ValueError):
        return None
    return handle


# The responses that are or were read: their bytes can be read only once.
_claimed: weakref.WeakSet[Any] = weakref.WeakSet()


def claim(raw: Any) -> None:
    """Record that a response is read from now on.

    :param raw: the response.
    :raises RuntimeError: it was claimed before.
    """
    if raw in _claimed:
        raise RuntimeError(
            "the response is read by another Reader or Relay already, and its bytes can be read only once: use that "
            "one, or make another request"
        )
    try:
        _claimed.add(raw)
    except TypeError:
        pass  # a foreign class that can't be weakly referenced


def handle_of(raw: Any) -> socket.socket | None:
    """Find the socket by which a blocked read can be woken.

    :param raw: the response.
    :return: a duplicate of its connection's socket; ``None`` if it is not read from a connection, as with a mock.
    :raises TypeError: a read of this response can't be woken.
    """
    handle = duplicate(raw)
    known = type(raw) is HTTPResponse and is_urllib3()
    if handle is not None or known or getattr(raw, "connection", None) is None:
        return handle
    # urllib3-future's responses have no descriptor, but their connection has its socket. That of HTTP/2 and HTTP/3
    # carries other answers too.
    if raw.version in (10, 11) and (handle := duplicate(connection_socket(raw))) is not None:
        return handle
    kind = type(raw)
    raise TypeError(
        f"a read of this response could not be cancelled: the socket of its connection can't be found "
        f"({kind.__module__}.{kind.__qualname__}, HTTP version {raw.version}). Make the request with requests over "
        "urllib3, or with HTTP/1.1 alone (niquests: Session(disable_http2=True, disable_http3=True))"
    )


def pool_is_held(source: Any) -> bool:
    """Whether another call holds the lock of the connection pool.

    The caller may be a signal handler that has interrupted the holder.

    :param source: a response.
    :return: whether it is held.
    """
    pool = getattr(getattr(source, "raw", source), "_pool", None)
    mutex = getattr(getattr(pool, "pool", None), "mutex", None)
    if mutex is None:
        return False
    if mutex.acquire(timeout=_POOL_SECONDS):
        mutex.release()
        return False
    return True
