"""The telephone line between a test and the producer that it leads: JSON, one message a line, over loopback.

With it a test knows what the producer has done, and the producer does the next thing when it is told to: no sleeps.
It is a connection of its own, as a server with one thread can't answer a second request while it streams.
"""

from __future__ import annotations

import contextlib
import json
import socket
from collections.abc import Iterator
from types import TracebackType
from typing import Any

#: Seconds until a silent peer is given up, so that no producer outlives its test for long.
TIMEOUT = 90.0


class Line:
    """One end of the line. ``Line.call(port)`` makes the application's."""

    def __init__(self, sock: socket.socket) -> None:
        sock.settimeout(TIMEOUT)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket = sock
        self._received = b""

    @classmethod
    def call(cls, port: int) -> Line:
        return cls(socket.create_connection(("127.0.0.1", port), TIMEOUT))

    def say(self, **message: Any) -> None:
        self._socket.sendall(json.dumps(message).encode() + b"\n")

    def hear(self, timeout: float = TIMEOUT) -> dict[str, Any] | None:
        """The next message; ``None`` when the other end has hung up.

        :raises TimeoutError: none came in time.
        """
        self._socket.settimeout(timeout)
        while b"\n" not in self._received:
            try:
                data = self._socket.recv(65536)
            except ConnectionResetError:
                data = b""
            if not data:
                return None
            self._received += data
        message, _, self._received = self._received.partition(b"\n")
        result: dict[str, Any] = json.loads(message)
        return result

    def __iter__(self) -> Iterator[dict[str, Any]]:
        while (message := self.hear()) is not None:
            yield message

    def hang_up(self) -> None:
        """End the conversation for both, from any thread."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self._socket.close()

    def __enter__(self) -> Line:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()
