"""An HTTP/1.x client that forgives nothing: each byte of a connection is accounted for, or the test fails and shows it.

What other clients are kind about is an error here: a byte behind the last chunk, a chunk extension, a header twice, a
bare LF, a reset where an orderly end belongs. A stray byte of another answer is always one of these.
"""

from __future__ import annotations

import re
import socket
import struct
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any

from tests.http_client import TIMEOUT

_STATUS = re.compile(rb"(HTTP/1\.[01]) ([1-5][0-9]{2}) ([\x20-\x7e]*)")
_HEADER = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]+): ?([\x20-\x7e\x80-\xff]*)")
#: Without zeros in front, extensions, or spaces.
_SIZE = re.compile(rb"0|[1-9A-Fa-f][0-9A-Fa-f]{0,7}")
#: Headers that say where an answer ends, or may stand once for other reasons.
_ONCE = {"connection", "content-encoding", "content-length", "content-type", "date", "server", "transfer-encoding"}
#: What a stream that the server ends may close with.
RETRY = re.compile(rb"retry: [1-9][0-9]*\n")


class Broken(AssertionError):
    """The bytes are not what HTTP or the test says they must be."""


class Strict:
    """One connection. All that comes is kept, and shown when something is wrong with it."""

    def __init__(self, sock: socket.socket) -> None:
        sock.settimeout(TIMEOUT)
        self.socket = sock
        #: All that ever came.
        self.received = bytearray()
        self._read = 0
        self.ended = False

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def request(
        self, target: str, *, method: str = "GET", version: str = "1.1", body: bytes | None = None, **headers: str
    ) -> None:
        """Send a request without waiting for its answer. ``Last_Event_ID`` stands for ``Last-Event-ID``."""
        self.send(compose(target, method=method, version=version, body=body, **headers))

    def answer(self, method: str = "GET") -> Answer:
        """Read the head of the next answer."""
        return Answer(self, method)

    def get(self, target: str, **options: Any) -> Answer:
        self.request(target, **options)
        return self.answer(options.get("method", "GET"))

    def line(self) -> bytes:
        """The next line, which ends in CR LF and holds neither by itself."""
        while (end := self.received.find(b"\n", self._read)) < 0:
            if not self.more():
                self.fail("the connection ended within a line")
        line = bytes(self.received[self._read : end + 1])
        if not line.endswith(b"\r\n") or b"\r" in line[:-2]:
            self.fail(f"a line ends in something else than CR LF: {line!r}")
        self._read = end + 1
        return line[:-2]

    def waiting(self) -> bytes:
        """Take what has come and was not read yet."""
        data = bytes(self.received[self._read :])
        self._read = len(self.received)
        return data

    def give_back(self, count: int) -> None:
        self._read -= count

    def more(self, within: float = TIMEOUT) -> bool:
        """Wait for more bytes; false at the connection's orderly end."""
        if self.ended:
            return False
        self.socket.settimeout(within)
        try:
            data = self.socket.recv(65536)
        except ConnectionResetError:
            self.fail("the connection was reset")
        except TimeoutError:
            self.fail(f"nothing came for {within} s")
        if not data:
            self.ended = True
        self.received += data
        return not self.ended

    def finish(self) -> None:
        """Fail unless the connection ends now, in order, without another byte."""
        if self._read < len(self.received) or self.more():
            self.fail("there are bytes behind the end")

    def silent(self, seconds: float = 0.2) -> None:
        """Fail if anything comes, be it the end, for a moment."""
        if self._read < len(self.received):
            self.fail("there are bytes where none should be")
        self.socket.settimeout(seconds)
        try:
            data = self.socket.recv(65536)
        except TimeoutError:
            return
        except ConnectionResetError:
            self.fail("the connection was reset")
        self.received += data
        self.fail("more came" if data else "the connection ended")

    def fail(self, why: str) -> Any:
        before, after = bytes(self.received[: self._read])[-3000:], bytes(self.received[self._read :])[:3000]
        raise Broken(f"{why}\nread: {before!r}\nthen: {after!r}")

    def fin(self) -> None:
        self.socket.close()

    def rst(self) -> None:
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()

    def __enter__(self) -> Strict:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.socket.close()


class Answer:
    """The head of an answer, read and checked when it is made; the body as the test asks for it.

    :param wire: the connection.
    :param method: that of the request: HEAD has no body.
    """

    def __init__(self, wire: Strict, method: str = "GET") -> None:
        self.wire = wire
        first = wire.line()
        match = _STATUS.fullmatch(first)
        if match is None:
            wire.fail(f"this is no status line: {first!r}")
        assert match is not None
        self.version, self.status, self.reason = match[1].decode(), int(match[2]), match[3].decode()
        #: Names in small letters, in order.
        self.headers: list[tuple[str, str]] = []
        while line := wire.line():
            header = _HEADER.fullmatch(line)
            if header is None:
                wire.fail(f"this is no header: {line!r}")
            assert header is not None
            self.headers.append((header[1].decode().lower(), header[2].decode("latin-1").strip(" ")))
        for name in _ONCE:
            if len(self.all(name)) > 1:
                wire.fail(f"the header {name} was sent {len(self.all(name))} times")
        #: How the body is framed: ``"chunked"``, ``"length"``, ``"raw"``, which ends with the connection, ``"none"``.
        self.framing = self._framing(method)
        #: What the decoded body is given to before it is looked at.
        self.undo: Callable[[bytes], bytes] = bytes
        self._body = b""
        self._left = int(self.header("content-length") or 0) if self.framing == "length" else 0
        self._over = self.framing == "none"

    def _framing(self, method: str) -> str:
        coding, length = self.header("transfer-encoding"), self.header("content-length")
        if coding is not None and (length is not None or coding != "chunked" or self.version == "HTTP/1.0"):
            self.wire.fail(f"these can't stand together: {self.version}, transfer-encoding {coding}, length {length}")
        if method == "HEAD" or self.status in (204, 304) or self.status < 200:
            return "none"
        if length is not None and not re.fullmatch("[0-9]{1,12}", length):
            self.wire.fail(f"this is no length: {length!r}")
        return "chunked" if coding else "raw" if length is None else "length"

    def all(self, name: str) -> list[str]:
        return [value for key, value in self.headers if key == name]

    def header(self, name: str) -> str | None:
        values = self.all(name)
        return values[0] if values else None

    @property
    def cookies(self) -> dict[str, str]:
        pairs = (value.partition(";")[0].partition("=") for value in self.all("set-cookie"))
        return {name: value for name, _, value in pairs}

    def expect(self, data: bytes) -> None:
        """Fail unless these are the body's very next bytes; wait for them, and for none behind them."""
        while data.startswith(self._body) and len(self._body) < len(data):
            if not self._step():
                break
        if not self._body.startswith(data):
            self._differs(data)
        self._body = self._body[len(data) :]

    def end(self, last: re.Pattern[bytes] | bytes = b"") -> None:
        """Fail unless the body ends now, after ``last`` and nothing else, as its framing says; and the connection too,
        unless the answer said that it would stay."""
        rest = self.rest()
        if not (last.fullmatch(rest) if isinstance(last, re.Pattern) else rest == last):
            self._body = rest
            self._differs(last)
        if self.framing != "raw" and not self.keeps_alive:
            self.wire.finish()

    def rest(self) -> bytes:
        """All of the body that was not asked for yet."""
        while self._step():
            pass
        data, self._body = self._body, b""
        return data

    def silent(self, seconds: float = 0.2) -> None:
        """Fail if anything more comes."""
        if self._body:
            self._differs(b"")
        self.wire.silent(seconds)

    def wait(self, seconds: float) -> None:
        """Read nothing for a while, however much may come."""
        time.sleep(seconds)

    @property
    def keeps_alive(self) -> bool:
        connection = (self.header("connection") or "").lower()
        return self.framing != "raw" and (
            connection == "keep-alive" if self.version == "HTTP/1.0" else connection != "close"
        )

    def _differs(self, expected: object) -> None:
        pattern = expected.pattern if isinstance(expected, re.Pattern) else expected
        self.wire.fail(f"expected {pattern!r}, but the body is {self._body!r}")

    def _step(self) -> bool:
        """Read some of the body; false where it is over."""
        if self._over:
            return False
        wire = self.wire
        if self.framing == "chunked" and not self._left:
            size = wire.line()
            if not _SIZE.fullmatch(size):
                wire.fail(f"this is no chunk's size: {size!r}")
            self._left = int(size, 16)
            if not self._left:
                if wire.line():
                    wire.fail("there is a trailer")
                self._over = True
                return False
        if self.framing == "length" and not self._left:
            self._over = True
            return False
        data = wire.waiting()
        while not data:
            if not wire.more():
                self._over = True
                if self.framing != "raw":
                    wire.fail(f"the connection ended {self._left} bytes early")
                return False
            data = wire.waiting()
        if self.framing != "raw":
            wire.give_back(len(data[self._left :]))
            data = data[: self._left]
            self._left -= len(data)
            if self.framing == "chunked" and not self._left and wire.line():
                wire.fail("a chunk is longer than its size says")
        self._body += self.undo(data)
        return True


def compose(
    target: str, *, method: str = "GET", version: str = "1.1", body: bytes | None = None, **headers: str
) -> bytes:
    """A request."""
    lines = [f"{method} {target} HTTP/{version}", "Host: localhost"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    if body is not None and "Content_Length" not in headers:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + (body or b"")
