"""What a served stream has handed to its server, and what is left of the last write."""

from __future__ import annotations

import time

__all__ = ["PIECE", "Output"]

#: What a client is given ``send_timeout`` for at a time: at 30 s, 2 kB/s is enough.
PIECE = 65536


class Output:
    """The bytes of one stream on their way to the server."""

    __slots__ = ("bytes", "created", "keep_alives", "last_write", "preamble", "rest")

    def __init__(self) -> None:
        #: What comes first.
        self.preamble = b""
        #: Of the last write, what was not handed over yet.
        self.rest: bytes | memoryview = b""
        #: How many bytes were handed over.
        self.bytes = 0
        #: How many keep-alives among them the stream sent by itself.
        self.keep_alives = 0
        #: When the stream was made, and when something was handed over last. On the monotonic clock.
        self.created = time.monotonic()
        self.last_write: float | None = None

    def next_piece(self, data: bytes | memoryview) -> bytes:
        """Count and return the first piece of a write, and keep the rest of it.

        In pieces that a slow client can take within ``send_timeout``: it is judged by each, not by all that waits. The
        rest is a view: copying it for each piece would be quadratic in an event of many megabytes.
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
        """Drop what is left of the last write.

        :return: whether there was something: then the client has the first part of an event only.
        """
        dropped, self.rest = bool(self.rest), b""
        return dropped
