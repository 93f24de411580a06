"""An answer as it comes in, taken apart so strictly that one byte too many or too few is found."""

from __future__ import annotations

import re

_STATUS = re.compile(rb"HTTP/1\.[01] (\d{3}) [\x20-\x7e]*")
_HEADER = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([\x20-\x7e\x80-\xff]*)")
_SIZE = re.compile(rb"([0-9a-fA-F]{1,8})\r\n")
_HALF_A_SIZE = re.compile(rb"[0-9a-fA-F]{0,8}\r?")


class Stray(AssertionError):
    """A byte where none may be."""


class Answer:
    """The answer to one GET, fed with what comes from the connection."""

    def __init__(self) -> None:
        #: 0 while the head is not complete.
        self.status = 0
        #: Names in small letters.
        self.headers: dict[str, str] = {}
        #: Whether the last chunk has come, or all that Content-Length says.
        self.complete = False
        self._buffer = bytearray()
        self._left = 0

    @property
    def chunked(self) -> bool:
        return self.headers.get("transfer-encoding") == "chunked"

    @property
    def keeps_alive(self) -> bool:
        """Whether another request may follow on the connection."""
        ends_by_itself = self.chunked or "content-length" in self.headers
        return ends_by_itself and self.headers.get("connection", "").lower() != "close"

    def feed(self, data: bytes) -> bytes:
        """What of the body these bytes bring.

        :raises Stray: they are no part of an answer.
        """
        if self.complete and data:
            raise Stray(f"after the end of the answer came {data[:200]!r}")
        if self.status:
            return self._body(data)
        self._buffer += data
        head, end, rest = bytes(self._buffer).partition(b"\r\n\r\n")
        if not end:
            if not b"HTTP/1.".startswith(head[:7]):
                raise Stray(f"no answer begins with {head[:200]!r}")
            return b""
        self._buffer.clear()
        self._take_head(head)
        return self._body(rest)

    def end(self) -> str:
        """How it ended, when the connection has: ``"last chunk"``, ``"length"``, ``"eof"`` where that is the only end
        there is, ``"cut"`` in the middle, ``"nothing"`` before the first byte."""
        if not self.status:
            return "cut" if self._buffer else "nothing"
        if self.complete:
            return "last chunk" if self.chunked else "length"
        return "cut" if self.chunked or "content-length" in self.headers else "eof"

    def _take_head(self, head: bytes) -> None:
        first, *lines = head.split(b"\r\n")
        status = _STATUS.fullmatch(first)
        if status is None:
            raise Stray(f"no answer begins with {first[:200]!r}")
        for line in lines:
            header = _HEADER.fullmatch(line)
            if header is None:
                raise Stray(f"no header is {line[:200]!r}")
            name = header[1].decode().lower()
            if name in self.headers and name != "set-cookie":
                raise Stray(f"{name} came twice, in {head!r}")
            self.headers[name] = header[2].decode("latin-1").strip()
        self.status = int(status[1])
        if self.chunked and "content-length" in self.headers:
            raise Stray(f"two lengths, in {head!r}")
        self._left = int(self.headers.get("content-length", -1))
        self.complete = not self.chunked and self._left == 0

    def _body(self, data: bytes) -> bytes:
        if self.chunked:
            return self._chunks(data)
        if self._left >= 0:
            if len(data) > self._left:
                raise Stray(f"after the end of the answer came {data[self._left :][:200]!r}")
            self._left -= len(data)
            self.complete = not self._left
        return data

    def _chunks(self, data: bytes) -> bytes:
        buffer = self._buffer
        buffer += data
        pieces, place = [], 0
        while not self.complete:
            size = _SIZE.match(buffer, place)
            if size is None:
                if _HALF_A_SIZE.fullmatch(buffer, place) is None:
                    raise Stray(f"no chunk begins with {bytes(buffer[place : place + 200])!r}")
                break
            begin, length = size.end(), int(size[1], 16)
            end = begin + length
            if len(buffer) < end + 2:
                if len(buffer) > end and buffer[end:] != b"\r":
                    raise Stray("a chunk is longer than its size says")
                break
            if buffer[end : end + 2] != b"\r\n":
                raise Stray(f"behind a chunk of {length} bytes came {bytes(buffer[end : end + 200])!r}")
            pieces.append(bytes(buffer[begin:end]))
            place = end + 2
            self.complete = not length
        del buffer[:place]
        if self.complete and buffer:
            raise Stray(f"after the last chunk came {bytes(buffer[:200])!r}")
        return b"".join(pieces)
