"""The hand-over of a gunicorn connection: the server's own socket object captures the written bytes.

gunicorn writes a response by methods of one :class:`socket.socket`, which it also puts into the environ. While it
writes the head of a stream that will be detached, this object is of a subclass whose methods keep the bytes. So the
descriptor is not changed before the head was checked, and no socket pair is needed: with one, see ``handover.py``, a
hand-over took some fifteen system calls more, each of which may cost the interpreter's lock.

The law of this file is that of ``handover.py``: no byte is lost, sent twice or reordered, whatever happens, and the
server's descriptor is always one that it can use.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable
from typing import Any

from ..server.descriptors import duplicate
from ..server.detaching import Head
from ..server.force_close import gunicorn_force_close
from ..server.wsgi_sockets import ClientSocket
from .head import LONGEST_HEAD, difference, log_dropped, prepare, sniff

__all__ = ["SocketCapture", "can_capture"]


class _Capturing(socket.socket):
    """A server's socket object while its takeover captures the written bytes. It has no attributes of its own, so an
    object of the base class can become one of this class, and back."""

    __slots__ = ()

    def sendall(self, data: Any, flags: int = 0) -> None:
        capture = _captures.get(id(self))
        if capture is None or not capture.keep(bytes(data)):
            socket.socket.sendall(self, data, flags)  # super() fails if the object is of that class again

    def send(self, data: Any, flags: int = 0) -> int:
        self.sendall(data, flags)
        return len(data)

    def sendmsg(self, buffers: Any, *arguments: Any) -> int:
        _release(self)
        return socket.socket.sendmsg(self, buffers, *arguments)

    def sendfile(self, *arguments: Any, **options: Any) -> int:
        _release(self)
        return socket.socket.sendfile(self, *arguments, **options)


# By the id() of the socket object, which each of these refers to.
_captures: dict[int, SocketCapture] = {}
# A connection whose other end is closed: the server's descriptor is one of it after the hand-over.
_dead: dict[None, socket.socket] = {}


def can_capture(server: str, connection: object) -> bool:
    """Check whether a server's socket object can capture the written bytes.

    :param server: the server's name in :func:`ssesync.server.wsgi_sockets.find_socket`.
    :param connection: its socket object.
    :return: whether it can.
    """
    return server == "gunicorn" and type(connection) is socket.socket


class SocketCapture:
    """Takes one connection from gunicorn, see :class:`ssesync.server.detaching.Takeover`.

    :param connection: the server's socket object.
    :param opening: the stream's first bytes.
    :param send_timeout: seconds after which a client counts as stalled.
    """

    def __init__(self, connection: socket.socket, opening: bytes, send_timeout: float | None = None) -> None:
        self._connection = connection
        self._opening = opening
        self._send_timeout = send_timeout
        self._kept: list[bytes] = []
        self._size = 0
        self._is_taken = False
        self._end_keep_alive: Callable[[], object] | None = None
        #: See :class:`ssesync.server.detaching.Takeover`.
        self.why = ""
        #: See :class:`ssesync.server.detaching.Takeover`.
        self.is_short = False

    def begin(self) -> bool:
        """From now on keep the bytes that the server writes.

        :return: whether that is possible.
        """
        if self.why:
            return False
        self._end_keep_alive = gunicorn_force_close()
        if self._end_keep_alive is None:
            self.why = "this worker can't be prevented from processing further requests of the client"
        elif type(self._connection) is not socket.socket or self._connection.fileno() < 0:
            self.why = "the request's connection is closed"
        else:
            _captures[id(self._connection)] = self
            self._connection.__class__ = _Capturing
            return True
        return False

    def keep(self, data: bytes) -> bool:
        """Keep bytes that the server writes. Called by its socket object.

        :param data: the bytes.
        :return: whether they were kept. If not, the earlier ones were sent, and the caller has to send these.
        :raises OSError: the response was abandoned, and the server begins another one on the connection.
        """
        if self._kept and not self._is_taken and data.startswith(b"HTTP/1."):
            self._stop_keeping()
            self._kept.clear()
            ClientSocket(self._connection.fileno()).shut()
            raise OSError(errno.EPIPE, "the response of an event stream was abandoned after its first chunk")
        self._size += len(data)
        if self._size > LONGEST_HEAD and not self._is_taken:
            self.undo()
            return False
        self._kept.append(data)
        return True

    def complete(self, give: Callable[[int, Head], object]) -> bool:
        """Take the connection from the server.

        :param give: called with the client's descriptor, which it then owns, and with the head to be sent first.
        :return: whether that was possible. If not, the connection is the server's again.
        """
        written = b"".join(self._kept)
        head = sniff(written, self._opening)
        if head is None or self._end_keep_alive is None:
            self.why = difference(written, self._opening)
            self.undo()
            return False
        connection = self._connection
        blocking, inheritable = os.get_blocking(connection.fileno()), connection.get_inheritable()
        try:
            fd = self._take(inheritable)
        except Exception as error:
            self.why = f"{type(error).__name__}: {error}"
            self.is_short = isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE)
            self.undo()
            return False
        self._is_taken = True
        self._kept.clear()
        try:
            give(fd, head)
        except Exception as error:
            self.why = f"{type(error).__name__}: {error}"
            os.dup2(fd, connection.fileno(), inheritable=inheritable)
            os.set_blocking(connection.fileno(), blocking)
            os.close(fd)
            self._is_taken = False
            self._kept[:] = [written]
            self.undo()
            return False
        self._end_keep_alive()
        return True

    def undo(self) -> None:
        """Return the connection to the server, and send the client the captured bytes. Any number of times; without
        effect once the connection was taken."""
        if self._is_taken or not self._stop_keeping():
            return
        written = b"".join(self._kept)
        self._kept.clear()
        if written:
            try:
                self._connection.sendall(written)
            except OSError:
                # The client is gone, or has stalled: the server's next bytes would come after a gap.
                ClientSocket(self._connection.fileno()).shut()

    def close(self) -> None:
        """Drop the bytes that the server has written since, at the end of its response. Any number of times."""
        self.undo()
        if self._stop_keeping():
            log_dropped(b"".join(self._kept))
            self._kept.clear()

    def tick(self, now: float) -> None:
        """Do nothing: the server never waits for a reader."""

    def _take(self, inheritable: bool) -> int:
        """Make the client's descriptor, and replace the server's by one of a closed connection.

        :raises OSError: there are no descriptors.
        """
        connection = self._connection
        dead = _dead_connection()
        fd = duplicate(connection.fileno())
        try:
            prepare(connection, self._send_timeout)
            os.dup2(dead.fileno(), connection.fileno(), inheritable=inheritable)
            os.set_blocking(fd, False)
        except BaseException:
            os.close(fd)
            raise
        return fd

    def _stop_keeping(self) -> bool:
        """Restore the socket object's class. The result: whether it was changed."""
        if _captures.get(id(self._connection)) is not self:
            return False
        self._connection.__class__ = socket.socket
        del _captures[id(self._connection)]
        return True


def _release(connection: socket.socket) -> None:
    """Send what was kept, since something is written that can't be kept."""
    if (capture := _captures.get(id(connection))) is not None:
        capture.undo()


def _dead_connection() -> socket.socket:
    if None not in _dead:
        made, other = socket.socketpair()
        other.close()
        if _dead.setdefault(None, made) is not made:
            made.close()
    return _dead[None]
