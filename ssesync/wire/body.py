"""Bodies that are not chunked: of a known length, or up to the connection's end (RFC 9112, section 6.3)."""

from __future__ import annotations

from typing import Protocol

from ..errors import ConnectionLost, ReadError

__all__ = ["BodyDecoder", "ClosedBody", "SizedBody"]


class BodyDecoder(Protocol):
    """Finds a body in the bytes of a connection, however they are cut. That of chunks is in ``chunked.py``."""

    done: bool
    """Whether the body's end was read."""
    error: ReadError | None
    """Why nothing more can be decoded. What was decoded before it is good."""

    def decode(self, data: bytes) -> list[bytes]:
        """Decode the next bytes.

        :return: the body's bytes in them.
        """
        ...

    def end(self) -> ReadError | None:
        """The connection has ended.

        :return: what is wrong with that, ``None`` at the end of the body.
        """


class SizedBody:
    """A body with a ``Content-Length``.

    :param size: how many bytes of it are still to come.
    """

    __slots__ = ("_left", "done", "error")

    def __init__(self, size: int) -> None:
        self._left = size
        self.done = not size
        self.error: ReadError | None = None

    def decode(self, data: bytes) -> list[bytes]:
        """See :class:`BodyDecoder`. What comes after the body is dropped."""
        data = data[: self._left]
        self._left -= len(data)
        self.done = not self._left
        return [data] if data else []

    def end(self) -> ReadError | None:
        """See :class:`BodyDecoder`."""
        return None if self.done else ConnectionLost(f"the connection ended {self._left:,} bytes before the body")


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
