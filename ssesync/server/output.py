"""The bytes that a served stream has passed to its server, and the rest of the last write."""

from __future__ import annotations

import time

__all__ = ["PIECE", "Output"]

#: Bytes that a client must accept within ``send_timeout``: at 30 s, 2 kB/s is enough.
PIECE = 65536


class Output:
    """The bytes of one stream on their way to the server."""

    __slots__ = ("bytes", "created", "keep_alives", "last_write", "preamble", "rest")

    def __init__(self) -> None:
        #: The first bytes.
        self.preamble = b""
        #: The rest of the last write, which the server does not have yet.
        self.rest: bytes | memoryview = b""
        #: How many bytes the server has.
        self.bytes = 0
        #: How many keep-alives among them the stream itself has made.
        self.keep_alives = 0
        #: When the stream was made, and when the server last got bytes. On the monotonic clock.
        self.created = time.monotonic()
        self.last_write: float | None = None

    def next_piece(self, data: bytes | memoryview) -> bytes:
        """Count the first piece of a write, and keep the rest of it.

        A slow client can accept a piece within ``send_timeout``, which applies to each piece and not to the whole
        write. The rest is a view, as copying it for each piece would be quadratic for an event of many megabytes.

        :param data: the write.
        :return: the first piece.
        """
        if len(data) > PIECE:
            self.rest = memoryview(data)[PIECE:]
            piece = bytes(data[:PIECE])
        else:
            self.rest = b""
            piece = bytes(data)
        self.bytes += len(piece)
        self.last_write = time.monotonic()
        return piece

    def drop_rest(self) -> bool:
        """Drop the rest of the last write.

        :return: whether there was any. Then the client has only a part of an event.
        """
        dropped, self.rest = bool(self.rest), b""
        return dropped
