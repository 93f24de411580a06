"""One who connects: what clients of streams and those who ask for ordinary answers have in common."""

from __future__ import annotations

import contextlib
import errno
import selectors
import socket
import struct
from typing import TYPE_CHECKING

from .answers import Answer, Stray

if TYPE_CHECKING:
    from .crowd import Crowd


class Member:
    """A connection at a time, on the thread of its crowd. It never waits."""

    receive_buffer: int | None = None

    def __init__(self, crowd: Crowd) -> None:
        self.crowd = crowd
        self.socket: socket.socket | None = None
        self.answer = Answer()
        self.connections = 0
        #: ``"away"``, ``"waiting"`` for its turn, ``"connecting"``, ``"asking"``, ``"answered"``.
        self.state = "away"
        #: Does not come back whatever happens.
        self.gone = False
        self._reading = True

    @property
    def port(self) -> int:
        """The near end's."""
        assert self.socket is not None
        return int(self.socket.getsockname()[1])

    def come(self) -> None:
        """Connect, as soon as not too many others do."""
        if self.state == "away" and not self.gone:
            self.state = "waiting"
            self.crowd.queue.append(self)

    def connect(self) -> None:
        """Begin to. For the crowd alone."""
        address = self.crowd.address
        sock = socket.socket(socket.AF_UNIX if isinstance(address, str) else socket.AF_INET)
        sock.setblocking(False)
        if self.receive_buffer is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self.receive_buffer)
        error = sock.connect_ex(address)
        self.socket, self.answer, self.state = sock, Answer(), "connecting"
        self.crowd.selector.register(sock, selectors.EVENT_WRITE, self)
        if error not in (0, errno.EINPROGRESS):
            # EAGAIN: a unix socket's queue is full. Else nobody listens.
            self.drop()
            self.crowd.later(0.05, self.come)

    def ready(self) -> None:
        """Something can be done with the socket. For the crowd alone."""
        sock = self.socket
        assert sock is not None
        if self.state == "connecting":
            if sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                self.drop()
                self.crowd.later(0.05, self.come)
                return
            self.state = "asking"
            self.connections += 1
            self.crowd.selector.modify(sock, selectors.EVENT_READ, self)
            self.connected()
            return
        try:
            data = sock.recv(self.bite())
        except BlockingIOError:
            return
        except ConnectionError:
            self._finish("reset")
            return
        if not data:
            self._finish(self.answer.end())
            return
        try:
            body = self.answer.feed(data)
            if self.answer.status and self.state == "asking":
                self.state = "answered"
                self.answered()
            self.came(body)
        except Stray as stray:
            raise AssertionError(f"{self!r}: {stray}; seed {self.crowd.seed}") from stray

    def _finish(self, how: str) -> None:
        self.drop()
        self.over(how)

    def drop(self) -> None:
        """Close the connection, and be away."""
        if self.socket is not None:
            if self._reading:
                self.crowd.selector.unregister(self.socket)
            self.socket.close()
        self.socket, self.state, self._reading = None, "away", True

    def leave(self, how: str = "fin") -> None:
        """``"fin"``, ``"rst"``, or ``"half"``: say that nothing more is sent, and read on to the end."""
        if self.socket is None:
            return
        if how == "half":
            with contextlib.suppress(OSError):
                self.socket.shutdown(socket.SHUT_WR)
            return
        if how == "rst":
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        else:
            # A socket that is closed with anything unread sends no FIN.
            with contextlib.suppress(OSError):
                while self.socket.recv(65536):
                    pass
        self.drop()

    def pause(self) -> None:
        """Read nothing until :meth:`go_on`."""
        if self.socket is not None and self._reading:
            self.crowd.selector.unregister(self.socket)
            self._reading = False

    def go_on(self) -> None:
        if self.socket is not None and not self._reading:
            self.crowd.selector.register(self.socket, selectors.EVENT_READ, self)
            self._reading = True

    def send(self, data: bytes) -> None:
        assert self.socket is not None
        with contextlib.suppress(ConnectionError):
            # A new connection takes more than any request is long.
            assert self.socket.send(data) == len(data)

    def bite(self) -> int:
        """How much to read now."""
        return 65536

    def connected(self) -> None:
        """The request can be sent."""

    def answered(self) -> None:
        """The answer's head has come."""

    def came(self, body: bytes) -> None:
        """Something came, with so much of a body."""

    def over(self, how: str) -> None:
        """The server has ended the connection: as :meth:`Answer.end` says, or by a ``"reset"``."""
