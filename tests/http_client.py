"""An HTTP client with nothing between the test and the bytes: it shows framing, ends and promptness as they are."""

from __future__ import annotations

import socket
from types import TracebackType

#: Seconds until a byte that should be there makes the test fail.
TIMEOUT = 90.0


class Connection:
    """One connection, for one request after the other."""

    def __init__(self, port: int, *, timeout: float = TIMEOUT, receive_buffer: int | None = None) -> None:
        self.socket = socket.socket()
        try:
            self.socket.settimeout(timeout)
            if receive_buffer is not None:
                self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
            self.socket.connect(("127.0.0.1", port))
        except BaseException:
            self.socket.close()
            raise
        self.received = b""

    def get(self, path: str, **headers: str) -> Response:
        return self.request("GET", path, **headers)

    def head(self, path: str, **headers: str) -> Response:
        return self.request("HEAD", path, **headers)

    def request(self, method: str, path: str, **headers: str) -> Response:
        lines = [f"{method} {path} HTTP/1.1", "Host: localhost"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        self.socket.sendall("\r\n".join([*lines, "", ""]).encode())
        return Response(self, method)

    def receive(self) -> bytes:
        """What has come, waiting for more if nothing has; ``b""`` at the connection's end."""
        if self.received:
            data, self.received = self.received, b""
            return data
        return self.socket.recv(65536)

    def rest(self) -> bytes:
        """All that comes until the server closes the connection."""
        pieces = []
        while piece := self.receive():
            pieces.append(piece)
        return b"".join(pieces)

    def line(self) -> bytes:
        data = b""
        while b"\r\n" not in data:
            more = self.receive()
            if not more:
                raise EOFError(f"the connection ended within a line: {data!r}")
            data += more
        line, _, self.received = data.partition(b"\r\n")
        return line

    def close(self) -> None:
        self.socket.close()

    def __enter__(self) -> Connection:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


class Response:
    """The head of an answer, read when it is made, and the body as it comes."""

    def __init__(self, connection: Connection, method: str) -> None:
        self._connection = connection
        version, status, _ = connection.line().decode("latin-1").split(" ", 2)
        self.version = version
        self.status = int(status)
        #: Names in small letters.
        self.headers: list[tuple[str, str]] = []
        while line := connection.line().decode("latin-1"):
            name, _, value = line.partition(":")
            self.headers.append((name.lower(), value.strip()))
        self.chunked = self.header("transfer-encoding") == "chunked"
        length = self.header("content-length")
        #: How the body ended: ``"last chunk"``, ``"length"``, ``"eof"`` or ``"none"``; ``None`` while it has not.
        self.end: str | None = None
        self._left = None if length is None else int(length)
        if method == "HEAD" or self.status in (204, 304):
            self.end = "none"
        elif self._left == 0 and not self.chunked:
            self.end = "length"
        self._body = b""

    def header(self, name: str) -> str | None:
        values = [value for key, value in self.headers if key == name]
        assert len(values) < 2, f"{name} was sent {len(values)} times: {values}"
        return values[0] if values else None

    @property
    def keeps_alive(self) -> bool:
        """Whether the server offers to take another request."""
        return self.version == "HTTP/1.1" and self.header("connection") != "close"

    def piece(self) -> bytes:
        """The next bytes of the body, ``b""`` at its end."""
        if self._body:
            data, self._body = self._body, b""
            return data
        if self.end is not None:
            return b""
        return self._chunk() if self.chunked else self._raw()

    def read(self) -> bytes:
        """All that is left of the body."""
        pieces = []
        while piece := self.piece():
            pieces.append(piece)
        return b"".join(pieces)

    def read_broken(self) -> bytes:
        """All that is left of a body that ends too early. Fails if it comes to its end."""
        pieces = []
        try:
            while piece := self.piece():
                pieces.append(piece)
        except (EOFError, ConnectionResetError):
            return b"".join(pieces)
        raise AssertionError(f"the body came to its end, {self.end}, after {b''.join(pieces)!r}")

    def expect(self, data: bytes) -> None:
        """Fail unless these are the very next bytes; wait for them, and for none behind them."""
        came = b""
        while len(came) < len(data) and data.startswith(came):
            piece = self.piece()
            if not piece:
                break
            came += piece
        assert came[: len(data)] == data
        self._body = came[len(data) :]

    def find(self, data: bytes) -> bytes:
        """Wait for these bytes; what came before them."""
        came = b""
        while data not in came:
            piece = self.piece()
            assert piece, came
            came += piece
        before, _, self._body = came.partition(data)
        return before

    def _raw(self) -> bytes:
        data = self._connection.receive()
        if self._left is None:
            if not data:
                self.end = "eof"
            return data
        if not data:
            raise EOFError(f"{self._left} bytes of the body are missing")
        self._connection.received = data[self._left :]
        data = data[: self._left]
        self._left -= len(data)
        if not self._left:
            self.end = "length"
        return data

    def _chunk(self) -> bytes:
        if not self._left:
            self._left = int(self._connection.line(), 16)
            if not self._left:
                assert self._connection.line() == b"", "there is a trailer"
                self.end = "last chunk"
                return b""
        data = self._connection.receive()
        if not data:
            raise EOFError("the connection ended within a chunk")
        self._connection.received = data[self._left :]
        data = data[: self._left]
        self._left -= len(data)
        if not self._left:
            assert self._connection.line() == b"", "a chunk is longer than its size says"
        return data
