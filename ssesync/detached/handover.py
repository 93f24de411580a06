"""The hand-over: a client's socket leaves the WSGI server when the headers are written.

WSGI has no means to take a socket from its server, and the server and the middleware make the headers. So the bytes are
*sniffed through a dummy*: while the server writes the headers and the stream's opening, its descriptor is one end of a
socket pair. The other end receives the bytes that the client would have got. If they are exactly the head and the
opening, the reactor sends them to the client, and the server finds its own connection ended. If they are anything else,
a middleware changes the stream's bytes, and the stream stays served: the bytes are sent to the client, and the
descriptor is the client's connection again.

The law of this file: no byte is lost, sent twice or reordered, whatever happens, and the server's descriptor is always
one that it can use.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import math
import os
import select
import socket
import struct
import time
from collections.abc import Callable

from ..locks import make_rlock
from ..reactor import run_foreign
from ..server.descriptors import duplicate
from ..server.detaching import Head
from ..server.force_close import gunicorn_force_close
from ..server.wsgi_sockets import ClientSocket
from .head import LONGEST_HEAD, difference, log_dropped, prepare, sniff
from .sending import AGAIN, make_send

__all__ = ["SocketTakeover"]

logger = logging.getLogger("ssesync")

# The size of the kernel's buffer that is requested, so that any head fits. Linux grants some 400 kB of it; ticks read
# the bytes of a larger head.
_DUMMY_BUFFER = 1024 * 1024
_PIECE = 65536
# Seconds for which a server may wait for the dummy, with a head larger than that.
_STUCK = 5
# Seconds after which a response counts as abandoned after its opening: a server takes the next chunk at once. If a view
# takes the opening itself and then fails, its error page is written into the dummy.
_ABANDONED = 30


class SocketTakeover:
    """Takes one connection from its server, see :class:`ssesync.server.detaching.Takeover`.

    :param found: the connection.
    :param opening: the stream's first bytes.
    :param send_timeout: seconds after which a client counts as stalled.
    """

    # Makes the descriptor that the reactor uses.
    _copy: Callable[[int], int] = staticmethod(duplicate)

    def __init__(self, found: ClientSocket, opening: bytes, send_timeout: float | None = None) -> None:
        self._server = found
        self._send_timeout = send_timeout
        self._opening = opening
        self._real = -1
        self._ours: socket.socket | None = None
        self._reading = make_rlock("server.takeover")  # held while the dummy is read, or its descriptors change
        self._read: list[bytes] = []
        self._before = _identity(found.fd)
        self._dummy: tuple[int, int] | None = None
        self._began = math.inf
        self._end_keep_alive: Callable[[], object] | None = None
        #: See :class:`ssesync.server.detaching.Takeover`.
        self.why = ""
        #: See :class:`ssesync.server.detaching.Takeover`.
        self.is_short = False

    def begin(self) -> bool:
        """From now on make the server write into the dummy.

        :return: whether that is possible.
        """
        fd = self._server.fd
        if self.why:
            return False
        try:
            if _identity(fd) != self._before:
                self.why = "the request's connection is closed"
                return False
            if self._server.server == "gunicorn":
                self._end_keep_alive = gunicorn_force_close()
                if self._end_keep_alive is None:
                    self.why = "this worker can't be prevented from processing further requests of the client"
                    return False
            self._real = self._copy(fd)
            ours, dummy = socket.socketpair()
            # Before it is an attribute: a worker's timeout may raise SystemExit between any two steps, and
            # :meth:`close`, which reads it to its end, must not wait.
            ours.setblocking(False)
            self._ours = ours
            with dummy:
                # As the server's own; with socket.setdefaulttimeout() a new one would not block.
                os.set_blocking(dummy.fileno(), os.get_blocking(fd))
                dummy.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _DUMMY_BUFFER)
                for side in (socket.SO_SNDTIMEO, socket.SO_RCVTIMEO):  # no bytes ever arrive on it
                    dummy.setsockopt(socket.SOL_SOCKET, side, struct.pack("ll", _STUCK, 0))
                self._dummy = _identity(dummy.fileno())
                self._began = time.monotonic()
                os.dup2(dummy.fileno(), fd, inheritable=os.get_inheritable(fd))
        except OSError as error:
            self.why = f"there are no descriptors for it: {error}"
            self.is_short = error.errno in (errno.EMFILE, errno.ENFILE)
            self._close_dummy()
            if self._real >= 0:
                os.close(self._real)
                self._real = -1
            return False
        return True

    def complete(self, give: Callable[[int, Head], object]) -> bool:
        """Take the connection from the server.

        :param give: called with the client's descriptor, which it then owns, and with the head to be sent first.
        :return: whether that was possible. If not, the connection is the server's again.
        """
        written = self._written()
        head = sniff(written, self._opening)
        if head is None or self._ours is None:
            self.why = difference(written, self._opening)
            self._give_back(written)
            return False
        # When the server reads the next request it finds the end of the connection.
        self._ours.shutdown(socket.SHUT_WR)
        fd = self._take_real()
        try:
            _prepare(fd, self._send_timeout)
            give(fd, head)
        except Exception as error:
            self.why = f"{type(error).__name__}: {error}"
            self._real = fd
            os.set_blocking(fd, os.get_blocking(self._server.fd))
            self._give_back(written)
            return False
        if self._end_keep_alive is not None:
            self._end_keep_alive()
        return True

    def undo(self) -> None:
        """Return the connection to the server, and send the client the captured bytes: the response has ended before it
        was complete."""
        if self._real >= 0:
            self._give_back(self._written())

    def close(self) -> None:
        """Release the dummy, at the end of the server's response. Any number of times."""
        self.undo()
        if self._ours is not None:
            left = self._written()
            log_dropped(left)
            self._close_dummy()

    def tick(self, now: float) -> None:
        """Read the bytes of a head that is larger than the kernel's buffer, so that the server can continue to write;
        cut the connection if the server does not take a second chunk. On the reactor's thread."""
        self._fetch(LONGEST_HEAD)
        with self._reading:
            abandoned = self._real >= 0 and now - self._began > _ABANDONED
            if abandoned:
                self._began = math.inf
                ClientSocket(self._real).shut()
        if abandoned:
            run_foreign(
                lambda: logger.warning(
                    "the response of an event stream was abandoned after its first chunk, so its connection is closed: "
                    "an error page or another response was sent instead"
                )
            )

    def _take_real(self) -> int:
        with self._reading:
            real, self._real = self._real, -1
        return real

    def _fetch(self, most: float) -> None:
        with self._reading, contextlib.suppress(BlockingIOError, ConnectionError):
            size = sum(map(len, self._read))
            while self._ours is not None and size < most and (piece := self._ours.recv(_PIECE)):
                self._read.append(piece)
                size += len(piece)
                if len(piece) < _PIECE:
                    break  # there are no more: another call would only release the interpreter's lock once more

    def _written(self) -> bytes:
        with self._reading:
            self._fetch(math.inf)
            pieces, self._read = self._read, []
        return b"".join(pieces)

    def _close_dummy(self) -> None:
        with self._reading:
            if self._ours is not None:
                self._ours.close()
                self._ours = None

    def _give_back(self, written: bytes) -> None:
        fd, real = self._server.fd, self._take_real()
        try:
            _send_all(real, written)
        except OSError:
            # The client is gone, or has stalled: the server's next bytes would come after a gap.
            ClientSocket(real).shut()
        finally:
            # If the response is closed late, the server has closed its descriptor, which may be another client's now.
            with contextlib.suppress(OSError):
                if self._dummy is not None and _identity(fd) == self._dummy:
                    os.dup2(real, fd, inheritable=os.get_inheritable(fd))
            os.close(real)
            self._close_dummy()


def _identity(fd: int) -> tuple[int, int] | None:
    try:
        status = os.fstat(fd)
    except OSError:
        return None  # it is closed
    return status.st_dev, status.st_ino


def _prepare(fd: int, send_timeout: float | None) -> None:
    handle = socket.socket(fileno=fd)
    try:
        handle.setblocking(False)
        prepare(handle, send_timeout)
    finally:
        handle.detach()


def _send_all(fd: int, data: bytes) -> None:
    """Send all bytes, whether the descriptor blocks or not.

    :raises OSError: the client is gone, or does not accept them in ``_STUCK`` seconds.
    """
    deadline = time.monotonic() + _STUCK
    send, writable = make_send(), select.poll()
    writable.register(fd, select.POLLOUT)
    while data:
        sent = send(fd, data, len(data))
        if sent < 0 and (sent not in AGAIN or time.monotonic() > deadline):
            raise OSError(-sent, os.strerror(-sent))
        data = data[max(0, sent) :]
        if data:
            writable.poll(100)
