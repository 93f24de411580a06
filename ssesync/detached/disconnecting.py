"""Closing a detached client's connection."""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING

from ..errors import CloseReason
from ..server.ending import ABSENT, encode_error
from ..server.incomplete import drop_rest, unacknowledged
from ..server.wsgi_sockets import reset_on_close
from ..wire.chunked import LAST_CHUNK, to_chunk
from .sending import Send

if TYPE_CHECKING:
    from .connection import Connection

__all__ = ["disconnect"]


def disconnect(connection: Connection, reason: CloseReason, send: Send, *, is_silent: bool) -> socket.socket | None:
    """Close the connection: with a reset if the client has not accepted all bytes, or would accept a part of the
    response as a complete one; else cleanly. On the reactor's thread.

    :param connection: the client's.
    :param reason: why it ends.
    :param send: see :func:`ssesync.detached.sending.make_send`.
    :param is_silent: send no bytes before the end, as no head was sent, or the trailer was.
    :return: a socket that the caller closes when the client has acknowledged all data, which resets the connection.
    """
    ends_by_fin = connection.chunked or connection.is_orderly(reason)
    if reason is CloseReason.CLIENT_GONE and ends_by_fin:
        # Thousands of clients may leave at once, and each further system call releases the interpreter's lock.
        os.close(connection.fd)
        return None
    try:
        handle = socket.socket(fileno=connection.fd)
    except OSError:
        os.close(connection.fd)
        return None
    try:
        handle.setblocking(False)  # with socket.setdefaulttimeout() it would block
        if not (is_silent or connection.waits or reason in ABSENT):
            end = _end(connection, reason)
            send(connection.fd, end, len(end))
        if not connection.waits and ends_by_fin:
            handle.shutdown(socket.SHUT_WR)
            drop_rest(handle)
        else:
            # A FIN would seem to end a complete response. The reset waits for the data in flight, which it would
            # discard, unless the response is cut off within an event anyway.
            reset_on_close(handle)
            if not connection.waits and reason not in ABSENT and unacknowledged(connection.fd) != 0:
                return handle
    except OSError:
        pass  # there are no bytes to read, or the client is gone already
    handle.close()
    return None


def _end(connection: Connection, reason: CloseReason) -> bytes:
    """Make the last bytes of a response that ends between two events."""
    if connection.is_orderly(reason):
        return LAST_CHUNK if connection.chunked else b""
    event = encode_error(connection.settings, reason, None, connection.name, call=False)
    return to_chunk(event) if connection.chunked else event
