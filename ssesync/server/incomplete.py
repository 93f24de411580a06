"""Making an answer incomplete, so that no client accepts a part of it as the whole.

A chunked answer is incomplete without its last chunk. An answer that ends with its connection is complete however that
is closed (RFC 9112, section 8). So the first kind ends with a FIN in place of the last chunk, and the second with a
reset. The reset is sent when the client's system has acknowledged all data, as a reset discards data in flight.

WSGI has no means for this, and each server ends an answer in its own way. There are two methods:

* The server's descriptor is replaced by one end of a socket pair, whose other end discards the last chunk. Then this
  module owns the connection and ends it, without a line in the server's log.
* The iterable raises an exception. All servers then omit the last chunk. This module chooses the exception that the
  server logs least.

Tried with every server that is named here; docs/design.md has the results.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

from ..greenlets import threads_are_greenlets
from .wsgi_sockets import ClientSocket, find_socket, reset_on_close

try:
    import fcntl
    import termios
except ImportError:  # Windows
    fcntl = termios = None  # type: ignore[assignment]

__all__ = ["Remains", "cut", "drop_rest", "unacknowledged"]

#: A socket to be closed when the server has closed the answer.
Remains = socket.socket

# Seconds that a server's thread waits for the client's system to acknowledge more data: more than any round trip, and
# less than the rest of gunicorn's graceful timeout when streams are ended for it.
_STALL_TIMEOUT = 1.0
# Seconds that it waits in all.
_MAX_WAIT = 5.0
# Seconds to wait if the kernel does not report how much is unacknowledged.
_BLIND_WAIT = 0.1
_POLL = 0.004
_PIECE = 65536

# Servers that use the chunked coding for an answer without a length, if the request was HTTP/1.1.
_CHUNKING = ("gunicorn", "gunicorn_pywsgi", "werkzeug", "waitress", "cheroot")


def cut(environ: Mapping[str, Any], *, at_once: bool = False) -> Remains | BaseException | None:
    """Make a served response incomplete for its client.

    Called on the server's thread, by the iterable's last ``next()``, when no other code uses the client's socket.

    :param environ: the WSGI environ of the request.
    :param at_once: don't wait until the client's system has acknowledged all sent data.
    :return: a socket to close when the server calls ``close()``; or an exception that the iterable must raise, if that
        is the only method; or ``None``.
    """
    found = find_socket(environ)
    if found is None:
        return _exception(environ)
    try:
        if found.server == "waitress":
            return _leave_to_waitress(environ, found, at_once)
        if found.server == "gunicorn_pywsgi" or threads_are_greenlets() or _is_gevents(environ):
            _end_below(found, _is_chunked(found, environ), at_once)
            return None
        return _end_instead(found, _is_chunked(found, environ), at_once)
    except OSError:
        # There are no free descriptors.
        return _exception(environ)


def unacknowledged(fd: int) -> int | None:
    """Count the sent bytes that the peer's system has not acknowledged.

    :return: their count; ``None`` if the kernel does not report it.
    """
    if fcntl is None or termios is None or sys.platform != "linux":
        return None
    # SIOCOUTQ, which has the number of TIOCOUTQ.
    return int(struct.unpack("i", fcntl.ioctl(fd, termios.TIOCOUTQ, b"\0" * 4))[0])


def drop_rest(handle: socket.socket) -> None:
    """Read and drop the client's bytes: with unread bytes the kernel would reset the connection on its close."""
    for _ in range(16):
        if not handle.recv(_PIECE, socket.MSG_DONTWAIT):
            break


def _is_chunked(found: ClientSocket, environ: Mapping[str, Any]) -> bool:
    """Whether the answer certainly has the chunked coding. A reset makes both kinds incomplete."""
    if found.server not in _CHUNKING or environ.get("SERVER_PROTOCOL") != "HTTP/1.1":
        return False
    if found.server == "werkzeug":
        return bool(environ.get("wsgi.multithread") or environ.get("wsgi.multiprocess"))
    # cheroot's own version, which may be configured to be older than the client's.
    return str(environ.get("ACTUAL_SERVER_PROTOCOL", "HTTP/1.1")) == "HTTP/1.1"


def _is_gevents(environ: Mapping[str, Any]) -> bool:
    return type(environ.get("wsgi.input")).__module__.startswith("gevent.")


def _exception(environ: Mapping[str, Any]) -> BaseException | None:
    """Make the exception that ends a response whose socket can't be reached.

    :return: ``None`` under a test client, which reads to the end.
    """
    if environ.get("HTTP_VERSION") == "2" and (errors := sys.modules.get("gunicorn.http2.errors")) is not None:
        # gunicorn answers it with RST_STREAM(INTERNAL_ERROR), and logs it at level DEBUG; others with a traceback.
        return errors.HTTP2StreamError(0, "the answer is incomplete")  # type: ignore[no-any-return]
    under_asgi = bool(environ) and "wsgi.version" not in environ and environ.get("SERVER_NAME") != "testserver"
    if "SERVER_SOFTWARE" in environ or under_asgi:
        # Servers handle it as a client that has left, which most of them don't log.
        return BrokenPipeError(errno.EPIPE, "the answer of an event stream is incomplete")
    return None


def _end_instead(found: ClientSocket, chunked: bool, at_once: bool) -> Remains:
    """Replace the server's descriptor, on which it then ends its answer, and end the connection."""
    blocking, inheritable = os.get_blocking(found.fd), os.get_inheritable(found.fd)
    ours, dead = socket.socketpair()
    try:
        with dead, socket.socket(fileno=os.dup(found.fd)) as real:
            os.set_blocking(dead.fileno(), blocking)
            os.dup2(dead.fileno(), found.fd, inheritable=inheritable)
            # The server finds an end of file when it reads the next request.
            ours.shutdown(socket.SHUT_WR)
            _finish(real, chunked, at_once, owned=True)
    except BaseException:
        ours.close()
        raise
    return ours


def _end_below(found: ClientSocket, chunked: bool, at_once: bool) -> None:
    """End the connection below the server's descriptor, which can't be replaced: gevent's hub has registered it.

    The last chunk then fails with a broken pipe, which gunicorn and gevent handle as a client that has left.
    """
    blocking = os.get_blocking(found.fd)
    copy = os.dup(found.fd)
    with socket.socket(fileno=copy) as real:
        os.set_blocking(copy, blocking)  # the server's flag, which a default timeout has just changed
        _finish(real, chunked, at_once, owned=False)


def _finish(real: socket.socket, chunked: bool, at_once: bool, *, owned: bool) -> None:
    """:param owned: whether the server no longer has a descriptor of the connection."""
    try:
        if chunked:
            real.shutdown(socket.SHUT_WR)
            if owned:
                drop_rest(real)
            return
        reset_on_close(real)
        if not at_once:
            _wait_until_none(lambda: unacknowledged(real.fileno()))
        if not owned:
            # Else the server would wait for another request of an HTTP/1.0 client that keeps its connection.
            real.shutdown(socket.SHUT_RD)
    except OSError:
        pass  # the client has left already, or has sent no more bytes


def _leave_to_waitress(environ: Mapping[str, Any], found: ClientSocket, at_once: bool) -> BaseException:
    """Leave the end to waitress, which sends on another thread, and closes the connection after all data is sent."""
    channel = environ["waitress.client_disconnected"].__self__
    if not _is_chunked(found, environ):

        def unsent() -> int | None:
            return getattr(channel, "total_outbufs_len", 0) or unacknowledged(found.fd)

        try:
            found.reset_on_close()
            if not at_once:
                _wait_until_none(unsent)
        except OSError:
            pass  # the client has left already
    # Logged as one line at level INFO; any other exception with a traceback.
    kind: type[Exception] = getattr(sys.modules.get("waitress.channel"), "ClientDisconnected", BrokenPipeError)
    return kind()


def _wait_until_none(unsent: Callable[[], int | None]) -> None:
    """Wait until no bytes are unsent, as long as they become fewer, for a bounded time."""
    now = time.monotonic()
    last, since, end = unsent(), now, now + _MAX_WAIT
    while last and now < end and now - since < _STALL_TIMEOUT:
        time.sleep(_POLL)
        size, now = unsent(), time.monotonic()
        if size != last:
            last, since = size, now
    if last is None:
        time.sleep(_BLIND_WAIT)
