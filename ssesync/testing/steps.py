"""The single steps of which the answers of a :class:`FakeSSEServer` are made, and the HTTP round them."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum, auto

from ..event import Event
from ..wire.chunked import LAST_CHUNK, to_chunk

__all__ = ["CHUNKED", "FIN", "HOLD", "LAST_CHUNK", "RST", "Pause", "Step", "Steps", "chunk", "chunked", "head"]


class Step(Enum):
    """What a script does besides sending."""

    FIN = auto()
    """End the connection in order."""
    RST = auto()
    """Cut the connection: the client's reads fail with ``ECONNRESET``."""
    HOLD = auto()
    """Stall: keep the connection open in silence until the client leaves or the server is closed."""


FIN, RST, HOLD = Step.FIN, Step.RST, Step.HOLD


@dataclass(frozen=True)
class Pause:
    """A step that waits, in real time. It ends early when the server is closed."""

    seconds: float
    """How long."""


#: The steps of one answer: ``bytes`` are sent as they are, an :class:`ssesync.Event` is encoded, a ``threading.Event``
#: or ``Semaphore`` is waited for (the test's handshake), and :class:`Pause`, ``FIN``, ``RST`` and ``HOLD`` do what
#: they say.
Steps = Iterable[bytes | Event | threading.Event | threading.Semaphore | Pause | Step]

#: The header of a chunked body.
CHUNKED = "Transfer-Encoding: chunked"


def head(
    *headers: str, status: str = "200 OK", content_type: str | None = "text/event-stream", version: str = "1.1"
) -> bytes:
    """A status line and headers, with the empty line that ends them.

    :param headers: whole header lines, ``"Retry-After: 1"``.
    :param status: number and reason.
    :param content_type: the media type; ``None`` sends none.
    :param version: of HTTP.
    """
    lines = [f"HTTP/{version} {status}", *([f"Content-Type: {content_type}"] if content_type else []), *headers]
    return "".join(f"{line}\r\n" for line in [*lines, ""]).encode("latin-1")


def chunk(data: bytes) -> bytes:
    """One chunk of a chunked body (RFC 9112, section 7.1)."""
    return to_chunk(data)


def chunked(*pieces: bytes) -> bytes:
    """A whole chunked body, one chunk a piece."""
    return b"".join(map(chunk, pieces)) + LAST_CHUNK
