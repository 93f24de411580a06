"""The client's socket, from what a WSGI server puts into the environ: one small function a server.

The law of this file: nothing here may fail. Each function looks for exactly what one server offers, by attribute,
and gives None where that is missing or has changed; then a client that leaves is noticed by failing writes.
Where each server keeps its socket was read in its source and tried; see docs/design.md.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import stat
import struct
import sys
from collections.abc import Callable, Mapping
from typing import Any

__all__ = ["ClientSocket", "expect_loss", "find_socket", "reset_on_close"]

# Milliseconds that the kernel takes for a timeout at most.
_LONGEST = 2**31 - 1


class ClientSocket:
    """The connection to one client. It is the server's: this inspects and shuts it down, but never reads or writes."""

    def __init__(self, fd: int, server: str = "") -> None:
        self.fd = fd
        #: The server that has it, by the name of the function that found it.
        self.server = server

    def shut(self) -> None:
        """Shut the connection down both ways, which ends a send that is blocked on it, with TLS too. Never blocks."""
        try:
            with _duplicate(self.fd) as handle:
                # Behind what waits a FIN would follow, and an answer that ends with its connection would look whole.
                reset_on_close(handle)
                handle.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass  # it is shut down already

    def reset_on_close(self) -> None:
        """Have the connection end with a reset when the server closes it.

        :raises OSError: it has ended already.
        """
        with _duplicate(self.fd) as handle:
            reset_on_close(handle)

    def expect_loss(self, seconds: float | None) -> None:
        """Have the kernel give up a peer that acknowledges nothing (RFC 5482), where it has the option.

        :param seconds: after which it does; ``None``: the system's own.
        """
        with contextlib.suppress(OSError), _duplicate(self.fd) as handle:
            expect_loss(handle, seconds)


def reset_on_close(handle: socket.socket) -> None:
    """Have the kernel send a reset when the last descriptor of a connection is closed. Unix sockets know none."""
    handle.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def expect_loss(handle: socket.socket, seconds: float | None) -> None:
    """See :meth:`ClientSocket.expect_loss`."""
    try:
        handle.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        if seconds is not None and hasattr(socket, "TCP_USER_TIMEOUT"):
            handle.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, min(int(seconds * 1000), _LONGEST))
    except OSError:
        pass  # a unix socket, or a system without the option: writes fail in the end


def find_socket(environ: Mapping[str, Any]) -> ClientSocket | None:
    """Find the client's socket.

    :return: ``None`` where the server is unknown, hides the socket, or shares it between streams (HTTP/2).
    """
    if environ.get("HTTP_VERSION") == "2":
        return None
    for find in _FINDERS:
        try:
            fd = find(environ)
        except Exception:
            continue
        if isinstance(fd, int) and fd >= 0:
            return ClientSocket(fd, find.__name__[1:]) if _is_socket(fd, find in _SOCKETS) else None
    return None


def _gunicorn(environ: Mapping[str, Any]) -> Any:
    return environ["gunicorn.socket"].fileno()


def _gunicorn_pywsgi(environ: Mapping[str, Any]) -> Any:
    # The gevent_pywsgi worker spells the key otherwise.
    return environ["gunicorn.sock"].fileno()


def _werkzeug(environ: Mapping[str, Any]) -> Any:
    return environ["werkzeug.socket"].fileno()


def _waitress(environ: Mapping[str, Any]) -> Any:
    # A method of the connection's channel; asking it is blind behind one pipelined byte, the socket is not.
    return environ["waitress.client_disconnected"].__self__.socket.fileno()


def _uwsgi(environ: Mapping[str, Any]) -> Any:
    # Only ever imported by uWSGI itself.
    return sys.modules["uwsgi"].connection_fd() if "uwsgi.version" in environ else None


def _cheroot(environ: Mapping[str, Any]) -> Any:
    # gevent's own server has the same.
    return environ["wsgi.input"].rfile.fileno()


def _runserver(environ: Mapping[str, Any]) -> Any:
    # Django wraps the connection's file in a LimitedStream, which keeps its read method.
    return environ["wsgi.input"]._read.__self__.fileno()


def _wsgiref(environ: Mapping[str, Any]) -> Any:
    return environ["wsgi.input"].fileno()


_FINDERS: tuple[Callable[[Mapping[str, Any]], Any], ...] = (
    _gunicorn,
    _gunicorn_pywsgi,
    _werkzeug,
    _waitress,
    _uwsgi,
    _cheroot,
    _runserver,
    _wsgiref,
)


# These find the socket itself. Others ask wsgi.input, which may be a file: under CGI, in a test, behind a middleware
# that buffers the request.
_SOCKETS = (_gunicorn, _gunicorn_pywsgi, _werkzeug, _waitress)


def _duplicate(fd: int) -> socket.socket:
    copy = os.dup(fd)
    blocking = os.get_blocking(copy)
    duplicate = socket.socket(fileno=copy)
    # With socket.setdefaulttimeout() a new socket object does not block, and so the server's would not either.
    os.set_blocking(copy, blocking)
    return duplicate


def _is_socket(fd: int, known: bool) -> bool:
    # known: if it is a socket, it is a client's. Beside threads that compute each system call counts, as it releases
    # the interpreter's lock.
    try:
        is_socket = stat.S_ISSOCK(os.fstat(fd).st_mode)
        if known or not is_socket:
            return is_socket
        with _duplicate(fd) as handle:
            try:
                handle.getpeername()
            except OSError as error:
                # Its client has gone already, unless it never was a client's.
                has_gone = error.errno in (errno.ENOTCONN, errno.EINVAL)
                return has_gone and not handle.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    except OSError:
        return False
    return True
