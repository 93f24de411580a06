"""A response whose connection is closed by this library, at once.

The server may close it late: gunicorn's gthread (from 26) waits on its main thread for the client's own close, up to
two seconds each. Five refused clients that did not close blocked an ordinary view for six seconds. And a refused
connection that stays open takes a descriptor and one of ``worker_connections``. So the server writes such a response
into a dummy, as it writes the head of a detached stream. This module sends it to the client and closes the connection,
and the server finds its own connection closed.
"""

from __future__ import annotations

import contextlib
import os
import re
import socket
from collections.abc import Callable

from ..wire.chunked import is_complete
from .handover import SocketTakeover
from .sending import make_send

__all__ = ["LastAnswer", "closing"]

_STATUS = re.compile(rb"HTTP/1\.[01] [2-5][0-9]{2}(?: [^\r\n]*)?")
# Bytes of a request's body that are read before the connection is closed: unread ones turn its end into a reset, which
# may overtake the response.
_UNREAD = 65536


def closing(written: bytes) -> bytes | None:
    """Make a response the last one on its connection.

    :param written: the response as a server has written it.
    :return: the same with ``Connection: close``; ``None`` if it is not complete.
    """
    top, end, body = written.partition(b"\r\n\r\n")
    status, *lines = top.split(b"\r\n")
    if not end or _STATUS.fullmatch(status) is None:
        return None
    fields = [(line.partition(b":")[0].lower(), line) for line in lines]
    values = {name: line.partition(b":")[2].strip(b" \t").lower() for name, line in fields}
    if b"transfer-encoding" in values:
        complete = values[b"transfer-encoding"] == b"chunked" and is_complete(body)
    elif b"content-length" in values:
        complete = values[b"content-length"] == b"%d" % len(body)
    else:
        complete = bool(body)  # it ends with the connection, and this library's responses have a body
    if not complete:
        return None
    kept = [line for name, line in fields if name not in (b"connection", b"keep-alive")]
    return b"\r\n".join([status, *kept, b"Connection: close", b"", body])


class LastAnswer(SocketTakeover):
    """The last response of one connection: :meth:`begin` before the server writes the head, :meth:`close` at its end.
    If the server has not written a complete response then, a middleware sends the rest later, and the connection is
    returned to the server."""

    # It is open for a moment only, so it is none of the descriptors for detached streams.
    _copy: Callable[[int], int] = staticmethod(os.dup)

    def close(self) -> None:
        """Send the response and end the connection. Any number of times."""
        if self._real >= 0:
            written = self._written()
            wire = closing(written)
            if wire is None:
                self._give_back(written)
            else:
                self._close_dummy()  # the server's next read of a request finds an end of file
                if self._end_keep_alive is not None:
                    self._end_keep_alive()
                _send_and_close(self._take_real(), wire)
        super().close()


def _send_and_close(fd: int, wire: bytes) -> None:
    """Never waits: a response of some hundred bytes fits into the kernel's buffer, unless the client has stalled."""
    make_send()(fd, wire, len(wire))
    with socket.socket(fileno=fd) as handle, contextlib.suppress(OSError):
        handle.setblocking(False)
        handle.shutdown(socket.SHUT_WR)
        handle.recv(_UNREAD)
