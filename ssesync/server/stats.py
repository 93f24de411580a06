"""What a stream came to."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["StreamStats"]


@dataclass(frozen=True, slots=True)
class StreamStats:
    """What a stream came to, given to ``on_close``."""

    events: int
    """Events that the producer wrote, or of a channel: that were given to this client."""
    bytes: int
    """Bytes handed to the server, or to the connection, not counting the transfer coding."""
    keep_alives: int
    """Keep-alives among them that the stream sent by itself."""
    seconds: float
    """From the stream's making to its end."""
