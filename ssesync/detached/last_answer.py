"""An answer after which the connection ends at once, by our own doing.

A server may take its time for that: gunicorn's gthread (from 26) waits on its main thread for the client's own close,
up to two seconds for each. Five refused clients that did not close held an ordinary view for six seconds. And a refused
connection that stays open takes a descriptor and a place of ``worker_connections``. So the server writes such an answer
into a dummy, as it writes the head of a stream that is detached; the client gets it from here, with the end of the
connection, and the server finds its own connection ended.
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
# Bytes of a request's body that are read before the connection is closed: those that are not make a reset of its end,
# which may overtake the answer.
_UNREAD = 65536


def closing(written: bytes) -> bytes | None:
    """An answer as a server has written it, but the last one on its connection; ``None`` where it is not complete."""
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
        complete = bool(body)  # it ends with the connection, and our answers have a body
    if not complete:
        return None
    kept = [line for name, line in fields if name not in (b"connection", b"keep-alive")]
    return b"\r\n".join([status, *kept, b"Connection: close", b"", body])


class LastAnswer(SocketTakeover):
    """Of one connection: :meth:`begin` before the server writes the head, :meth:`close` when it is done. Where what it
    has written is not a complete answer then, some middleware is still to send it, and the connection is the server's
    again."""

    _copy: Callable[[int], int] = staticmethod(os.dup)  # for a moment: no place among the detached

    def close(self) -> None:
        """Send the answer and end the connection. Any number of times."""
        if self._real >= 0:
            written = self._written()
            wire = closing(written)
            if wire is None:
                self._give_back(written)
            else:
                self._hang_up()  # the server's next look for a request finds an end
                if self._end_keep_alive is not None:
                    self._end_keep_alive()
                _send_and_close(self._take_real(), wire)
        super().close()


def _send_and_close(fd: int, wire: bytes) -> None:
    """Never waits: an answer of some hundred bytes has room in the kernel's buffer, or its client reads nothing."""
    make_send()(fd, wire, len(wire))
    with socket.socket(fileno=fd) as handle, contextlib.suppress(OSError):
        handle.setblocking(False)
        handle.shutdown(socket.SHUT_WR)
        handle.recv(_UNREAD)
