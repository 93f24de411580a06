"""Taps: the connection of a response, taken from urllib3, for the reactor to read without waiting.

As in ``transport.py``, private parts of urllib3 and http.client are used only if every object from the response to the
socket has exactly the type that they were written for: plain connections and unix sockets, TLS, and either through a
proxy's CONNECT. For TLS in TLS, another library in urllib3's place, a mock, a body in a content coding or one of which
a part was read, a thread reads the response.

A tap has the connection alone. The response is closed, which releases the connection's slot in its pool; an open
response would take 17 kB.
"""

from __future__ import annotations

import errno
import os
import select
import socket
import ssl
import weakref
from collections.abc import Callable
from typing import Any

import requests

from ..producing import Tap
from ..receiving import AGAIN, PIECE, make_receive
from ..wire.body import BodyDecoder, ClosedBody, SizedBody
from ..wire.chunked import ChunkDecoder
from ..wire.decoder import MAX_EVENT_SIZE
from .transport import reader_of

__all__ = ["can_tap", "detect_truncation", "has_ended", "tap_of"]

# Of epoll and poll: the peer has closed its sending half. gevent's patch takes the name from the select module.
_RDHUP = 0x2000


def can_tap(response: Any) -> bool:
    """Whether a response's connection can be read by its descriptor from now on. Nothing is read.

    :param response: the response.
    :return: whether it can.
    """
    if type(response) is not requests.Response or response._content_consumed:  # type: ignore[attr-defined]
        return False
    raw: Any = response.raw
    reader = reader_of(raw)
    if reader is None or reader.closed:
        return False
    inner = raw._fp
    if raw._body or raw._fp_bytes_read or (inner.chunked and (raw.chunk_left, inner.chunk_left) != (None, None)):
        return False  # a part of it was read
    if raw.headers.get("content-encoding", "").strip().lower() not in ("", "identity"):
        return False
    # urllib3 takes more values of Transfer-Encoding for chunked than http.client does.
    return bool(inner._method != "HEAD" and inner.chunked == raw.chunked and (inner.chunked or inner.length != 0))


def has_ended(response: Any, timeout: float) -> bool:
    """Whether the upstream has ended its connection, cleanly or not.

    :param response: one that can be tapped.
    :param timeout: seconds to wait for its first bytes, if none have arrived.
    :return: whether it has.
    """
    reader: Any = reader_of(response.raw)
    if reader is None:
        return True
    sock = reader.raw._sock
    if timeout and _held(sock, reader):
        timeout = 0
    poll = select.poll()
    poll.register(sock.fileno(), select.POLLIN | _RDHUP)
    return any(events & ~select.POLLIN for _, events in poll.poll(timeout * 1000))


def detect_truncation(response: Any) -> None:
    """Make a TLS connection that ends without a close_notify alert (RFC 8446, section 6.1) count as broken: any machine
    on the path can end it so. By default ssl reports such an end as an orderly one, and so the body of a response
    without a length would seem complete.

    :param response: the response.
    """
    reader = reader_of(getattr(response, "raw", response))
    if reader is not None and isinstance(sock := reader.raw._sock, ssl.SSLSocket):  # type: ignore[attr-defined]
        sock.suppress_ragged_eofs = False  # type: ignore[attr-defined]


def tap_of(response: Any, duplicate: Callable[[int], int], release_connection: Callable[[], object]) -> Tap:
    """Take a response's connection, and close the response.

    :param response: one that can be tapped.
    :param duplicate: see :meth:`ssesync.producing.Producing.tap`.
    :param release_connection: called before the response is closed, see :meth:`ssesync.client.body.Body`.
    :return: the tap.
    :raises OSError: there are no more descriptors; nothing has changed.
    """
    raw: Any = response.raw
    inner = raw._fp
    reader: Any = inner.fp
    sock = reader.raw._sock
    body: BodyDecoder = ChunkDecoder()
    if not inner.chunked:
        body = ClosedBody() if inner.length is None else SizedBody(inner.length)
    idle_timeout = sock.gettimeout()
    is_tls = isinstance(sock, ssl.SSLSocket)
    fd = -1 if is_tls else duplicate(sock.fileno())
    held = _held(sock, reader)
    sock.settimeout(0)
    tap: _PlainTap | _TLSTap
    if is_tls:
        sock.suppress_ragged_eofs = False  # pyright: ignore[reportAttributeAccessIssue]
        inner.fp = None  # the socket stays open after the response is closed, as long as the detached reader exists
        tap = _TLSTap(sock, reader.detach(), body, held, idle_timeout)
    else:
        tap = _PlainTap(fd, body, held, idle_timeout)
    _open.add(tap)
    release_connection()
    response.close()
    return tap


def _held(sock: socket.socket, reader: Any) -> bytes:
    """The bytes that a reader has received after the head, or can receive without waiting."""
    timeout = sock.gettimeout()
    sock.settimeout(0)  # first: peek() of an empty reader reads
    try:
        return bytes(reader.peek(1))
    except OSError:
        return b""  # no bytes have arrived, or the connection broke, which the next read reports too
    finally:
        sock.settimeout(timeout)


class _PlainTap:
    __slots__ = ("__weakref__", "_fd", "_receive", "body", "held", "idle_timeout", "max_event_size")

    def __init__(self, fd: int, body: BodyDecoder, held: bytes, idle_timeout: float | None) -> None:
        self._fd = fd
        self._receive = make_receive()
        self.body = body
        self.held = held
        self.idle_timeout = idle_timeout
        self.max_event_size = MAX_EVENT_SIZE

    def fileno(self) -> int:
        return self._fd

    def receive(self) -> bytes | None:
        received = self._receive(self._fd)
        if isinstance(received, bytes):
            return received
        if received in AGAIN:
            return None
        raise OSError(-received, os.strerror(-received))

    def is_pending(self) -> bool:
        return False

    def close(self) -> None:
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)


class _TLSTap:
    """:param owner: the object that keeps the socket open."""

    __slots__ = ("__weakref__", "_owner", "_socket", "body", "held", "idle_timeout", "max_event_size")

    def __init__(
        self, sock: ssl.SSLSocket, owner: socket.SocketIO, body: BodyDecoder, held: bytes, idle_timeout: float | None
    ) -> None:
        self._socket: ssl.SSLSocket | None = sock
        self._owner = owner
        self.body = body
        self.held = held
        self.idle_timeout = idle_timeout
        self.max_event_size = MAX_EVENT_SIZE

    def fileno(self) -> int:
        return -1 if self._socket is None else self._socket.fileno()

    def receive(self) -> bytes | None:
        if self._socket is None:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        try:
            return self._socket.recv(PIECE)
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return None

    def is_pending(self) -> bool:
        # A record is decrypted as a whole, and may be received in parts.
        return self._socket is not None and self._socket.pending() > 0

    def close(self) -> None:
        self._socket = None
        self._owner.close()


# A forked child has these descriptors too, and must not keep the connections open when their parent has closed them.
_open: weakref.WeakSet[_PlainTap | _TLSTap] = weakref.WeakSet()


def _after_fork() -> None:
    for tap in list(_open):
        tap.close()
    _open.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
