"""The figures of one stream."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

__all__ = ["StreamStats", "describe"]


@dataclass(frozen=True, slots=True)
class StreamStats:
    """The figures of one stream, given to ``on_close``."""

    events: int
    """Events that the producer wrote; of a subscription, those that were sent to this client."""
    bytes: int
    """Bytes passed to the server or sent on the connection, without the transfer coding."""
    keep_alives: int
    """Keep-alives among them that the stream itself has made."""
    seconds: float
    """From the stream's making to its end."""


class _Described(Protocol):
    """The common part of served and detached streams."""

    @property
    def name(self) -> str: ...
    @property
    def stats(self) -> StreamStats: ...
    @property
    def senses_disconnect(self) -> bool: ...


def describe(
    stream: _Described, age: float, pending: tuple[int, int], quiet: float | None, tier: str
) -> dict[str, Any]:
    """Describe a stream for ``streams.snapshot()``.

    :param stream: the stream.
    :param age: in seconds.
    :param pending: events and bytes that wait for the client.
    :param quiet: seconds since the last write, if there was one.
    :param tier: the serving mode: ``served`` or ``detached``.
    :return: plain values.
    """
    stats = stream.stats
    return {
        "id": id(stream),
        "name": stream.name,
        "age": round(age, 3),
        "events": stats.events,
        "bytes": stats.bytes,
        "pending_events": pending[0],
        "pending_bytes": pending[1],
        "last_write": None if quiet is None else round(quiet, 3),
        "tier": tier,
        "senses_disconnect": stream.senses_disconnect,
    }
