"""The contract between ``server`` and a relay, an object of ``client`` that writes a whole stream.

``server`` and ``client`` never import each other. Both import this module.
"""

from __future__ import annotations

import abc
from typing import Any, NamedTuple, Protocol

from .cancel import CancelToken

__all__ = ["Producing", "Refusal", "Target"]


class Refusal(NamedTuple):
    """An answer in place of a stream."""

    status: str
    """The status line without the protocol: ``"404 Not Found"``."""
    headers: list[tuple[str, str]]
    body: bytes = b""


class Target(Protocol):
    """What a :class:`Producing` object needs of a stream's :class:`ssesync.Writer`."""

    cancelled: CancelToken

    def write(self, item: Any) -> None:
        """Write an event."""

    def write_raw(self, data: bytes, *, events: int) -> None:
        """Write bytes as they are."""


class Producing(abc.ABC):
    """An object that writes a whole stream by itself."""

    #: The answer in place of a stream; ``None``: there is a stream.
    answer: Refusal | None = None

    @abc.abstractmethod
    def produce(self, writer: Target) -> None:
        """Write the stream to its end, on the producer's thread."""

    @abc.abstractmethod
    def close(self) -> None:
        """Release what it reads from. Any thread, any number of times; the stream calls it when it has ended."""
