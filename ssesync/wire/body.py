"""Bodies that are not chunked: of a known length, or up to the connection's end (RFC 9112, section 6.3)."""

from __future__ import annotations

from typing import Protocol

from ..errors import ConnectionLost, ReadError

__all__ = ["BodyDecoder", "ClosedBody", "SizedBody"]


class BodyDecoder(Protocol):
    """Finds a body in the bytes of a connection, however they are cut. The decoder of chunks is in ``chunked.py``."""

    done: bool
    """Whether the body's end was read."""
    error: ReadError | None
    """Why no more can be decoded. All bytes that were decoded before are valid."""

    def decode(self, data: bytes) -> list[bytes]:
        """Decode the next bytes.

        :return: the body's bytes in them.
        """
        ...

    def end(self) -> ReadError | None:
        """Note that the connection has ended.

        :return: the error if the body is incomplete; ``None`` at its end.
        """


class SizedBody:
    """A body with a ``Content-Length``.

    :param size: how many bytes of it were not received yet.
    """

    __slots__ = ("_missing", "done", "error")

    def __init__(self, size: int) -> None:
        self._missing = size
        self.done = not size
        self.error: ReadError | None = None

    def decode(self, data: bytes) -> list[bytes]:
        """See :class:`BodyDecoder`. Bytes after the body are dropped."""
        data = data[: self._missing]
        self._missing -= len(data)
        self.done = not self._missing
        return [data] if data else []

    def end(self) -> ReadError | None:
        """See :class:`BodyDecoder`."""
        return None if self.done else ConnectionLost(f"the connection ended {self._missing:,} bytes before the body")


class ClosedBody:
    """A body that ends with its connection."""

    __slots__ = ("done", "error")

    def __init__(self) -> None:
        self.done = False
        self.error: ReadError | None = None

    def decode(self, data: bytes) -> list[bytes]:
        """See :class:`BodyDecoder`."""
        return [data]

    def end(self) -> ReadError | None:
        """See :class:`BodyDecoder`."""
        self.done = True
        return None
