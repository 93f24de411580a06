"""How the connection of a detached client is closed."""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING

from ..errors import CloseReason
from ..server.cutting import drop_rest, unacknowledged
from ..server.ending import ABSENT, encode_error
from ..server.wsgi_sockets import reset_on_close
from ..wire.chunked import LAST_CHUNK, to_chunk

if TYPE_CHECKING:
    from .connection import Connection

__all__ = ["disconnect"]


def disconnect(connection: Connection, reason: CloseReason) -> socket.socket | None:
    """Close the connection: cleanly, unless the client is in the middle of something, or would take a part of the
    answer for the whole. On the loop's thread.

    :return: what is to be closed when its client has what was sent, with a reset.
    """
    if reason is CloseReason.CLIENT_GONE and (connection.orderly or connection.chunked):
        # Thousands may leave at once, and each call to the system lets go of the interpreter's lock.
        os.close(connection.fd)
        return None
    try:
        handle = socket.socket(fileno=connection.fd)
    except OSError:
        os.close(connection.fd)
        return None
    try:
        handle.setblocking(False)  # with socket.setdefaulttimeout() it would wait for what the client says
        if _end(connection, handle, reason):
            return handle
    except OSError:
        pass  # nothing to be read, or it has gone already
    handle.close()
    return None


def _end(connection: Connection, handle: socket.socket, reason: CloseReason) -> bool:
    """Send what ends the answer; whether the connection must be kept until the client has that."""
    in_the_middle = connection.waits
    if not in_the_middle and not connection.farewell and reason not in ABSENT:
        end = LAST_CHUNK if connection.chunked and connection.orderly else b""
        if not connection.orderly:
            last = encode_error(connection.settings, reason, None, connection.name, call=False)
            end = to_chunk(last) if connection.chunked else last
        connection.group.loop.send(connection.fd, end, len(end))
    if not in_the_middle and (connection.orderly or connection.chunked):
        handle.shutdown(socket.SHUT_WR)
        drop_rest(handle)
        return False
    # A reset, since an end would look like that of an answer; and what waits for it goes at once.
    reset_on_close(handle)
    return not in_the_middle and reason not in ABSENT and unacknowledged(connection.fd) != 0
