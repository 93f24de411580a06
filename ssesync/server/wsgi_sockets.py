"""The client's socket, found through the objects that a WSGI server puts into the environ.

The law of this file: no function here may fail. If a server's attribute is missing or has changed, there is no socket,
and the end of a client's connection is noticed by failing writes. The attributes were read in each server's source, and
tried; see docs/design.md.
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

# The kernel's longest timeout, in milliseconds.
_LONGEST = 2**31 - 1


class ClientSocket:
    """The connection to one client. It is the server's: this inspects and shuts it down, but never reads or writes."""

    def __init__(self, fd: int, server: str = "") -> None:
        self.fd = fd
        #: The server that owns it, by its name in ``_FINDERS``.
        self.server = server

    def shut(self) -> None:
        """Shut the connection down both ways, which ends a send that is blocked on it, with TLS too. Never blocks."""
        try:
            with _duplicate(self.fd) as handle:
                # A FIN would follow the unsent bytes, and a response that ends with its connection would seem complete.
                reset_on_close(handle)
                handle.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass  # it is shut down already

    def reset_on_close(self) -> None:
        """Set the option by which the connection ends with a reset when the server closes it.

        :raises OSError: it has ended already.
        """
        with _duplicate(self.fd) as handle:
            reset_on_close(handle)

    def expect_loss(self, seconds: float | None) -> None:
        """Set the time after which the kernel gives up a peer that acknowledges no data (RFC 5482), if it has the
        option.

        :param seconds: the time; ``None``: the system's default.
        """
        with contextlib.suppress(OSError), _duplicate(self.fd) as handle:
            expect_loss(handle, seconds)


def reset_on_close(handle: socket.socket) -> None:
    """Set the option by which the kernel sends a reset when the last descriptor of a connection is closed. It has no
    effect on unix sockets."""
    handle.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def expect_loss(handle: socket.socket, seconds: float | None) -> None:
    """See :meth:`ClientSocket.expect_loss`."""
    try:
        handle.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        if seconds is not None and hasattr(socket, "TCP_USER_TIMEOUT"):
            handle.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, min(int(seconds * 1000), _LONGEST))
    except OSError:
        pass  # a unix socket, or a system without the option: a write fails later


def find_socket(environ: Mapping[str, Any]) -> ClientSocket | None:
    """Find the client's socket.

    :param environ: the WSGI environ of the request.
    :return: the socket; ``None`` if the server is unknown, hides the socket, or shares it between streams (HTTP/2).
    """
    if environ.get("HTTP_VERSION") == "2":
        return None
    for server, find in _FINDERS.items():
        try:
            fd = find(environ)
        except Exception:
            continue
        if isinstance(fd, int) and fd >= 0:
            return ClientSocket(fd, server) if _is_socket(fd, known=server in _SOCKETS) else None
    return None


# Finds each server's socket. An exception means another server's environ, or a release that has changed.
_FINDERS: dict[str, Callable[[Mapping[str, Any]], Any]] = {
    "gunicorn": lambda environ: environ["gunicorn.socket"].fileno(),
    # The gevent_pywsgi worker has another name for the key.
    "gunicorn_pywsgi": lambda environ: environ["gunicorn.sock"].fileno(),
    "werkzeug": lambda environ: environ["werkzeug.socket"].fileno(),
    # The key has a method of the connection's channel. It fails behind one pipelined byte, so the socket is used.
    "waitress": lambda environ: environ["waitress.client_disconnected"].__self__.socket.fileno(),
    # The module exists only inside uWSGI.
    "uwsgi": lambda environ: sys.modules["uwsgi"].connection_fd() if "uwsgi.version" in environ else None,
    # gevent's own server has the same attributes.
    "cheroot": lambda environ: environ["wsgi.input"].rfile.fileno(),
    # Django wraps the connection's file in a LimitedStream, which keeps its read method.
    "runserver": lambda environ: environ["wsgi.input"]._read.__self__.fileno(),
    "wsgiref": lambda environ: environ["wsgi.input"].fileno(),
}
# These put the socket itself into the environ. For the others it is found through wsgi.input, which may be a file:
# under CGI, in a test, behind a middleware that buffers the request.
_SOCKETS = ("gunicorn", "gunicorn_pywsgi", "werkzeug", "waitress")


def _duplicate(fd: int) -> socket.socket:
    copy = os.dup(fd)
    blocking = os.get_blocking(copy)
    duplicate = socket.socket(fileno=copy)
    # With socket.setdefaulttimeout() a new socket object does not block, and so the server's would not either.
    os.set_blocking(copy, blocking)
    return duplicate


def _is_socket(fd: int, *, known: bool) -> bool:
    # known: if it is a socket, it is a client's. Each system call releases the interpreter's lock, which is expensive
    # while other threads compute.
    try:
        is_socket = stat.S_ISSOCK(os.fstat(fd).st_mode)
        if known or not is_socket:
            return is_socket
        with _duplicate(fd) as handle:
            try:
                handle.getpeername()
            except OSError as error:
                # Its client has left already, unless it never was a client's.
                has_gone = error.errno in (errno.ENOTCONN, errno.EINVAL)
                return has_gone and not handle.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    except OSError:
        return False
    return True
