"""The contracts between ``server`` and a relay, an object of ``client`` that writes a whole stream.

``server`` and ``client`` never import each other. Both import this module, and so does ``detached``, where the reactor
reads a relay's upstream by its :class:`Tap`.
"""

from __future__ import annotations

import abc
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from .cancel import CancelToken

if TYPE_CHECKING:
    from .wire.body import BodyDecoder

__all__ = ["Exchange", "Producing", "Refusal", "Tap", "Target"]


class Refusal(NamedTuple):
    """An answer in place of a stream."""

    status: str
    """The status line without the protocol: ``"404 Not Found"``."""
    headers: list[tuple[str, str]]
    body: bytes = b""


class Target(Protocol):
    """The part of a stream's :class:`ssesync.Writer` that a :class:`Producing` object uses."""

    cancelled: CancelToken

    def write(self, item: Any) -> None:
        """Write an event."""

    def write_raw(self, data: bytes, *, events: int) -> None:
        """Write bytes as they are."""


class Tap(Protocol):
    """The connection to an upstream, taken from its HTTP client. For one thread at a time; nothing here waits."""

    body: BodyDecoder
    """Finds the body in the received bytes."""
    held: bytes
    """The bytes of the body that the HTTP client had received. They come before all bytes of :meth:`receive`."""
    idle_timeout: float | None
    """Seconds without a byte after which the upstream counts as broken."""
    max_event_size: int
    """Bytes of an unfinished event that are buffered."""

    def fileno(self) -> int:
        """The descriptor to wait for until there are bytes to receive."""
        ...

    def receive(self) -> bytes | None:
        """Receive bytes without waiting.

        :return: the bytes; ``None``: none now; ``b""``: the connection has ended.
        :raises OSError: it broke, or its TLS was truncated.
        """

    def is_pending(self) -> bool:
        """Whether there are bytes to receive although the descriptor is not readable."""
        ...

    def close(self) -> None:
        """Close the connection. Any number of times."""


class Exchange(Protocol):
    """A request to an upstream that was not sent yet; see ``client/exchange.py``."""

    @property
    def idle_timeout(self) -> float | None:
        """Seconds to wait for the upstream's answer."""

    def send(self) -> int:
        """Connect, and send the request. This may wait.

        :return: the descriptor that is readable when the answer arrives; -1: it has arrived.
        :raises Exception: the upstream can't be reached.
        """
        ...

    def close(self) -> None:
        """End the step in progress. Any thread, any number of times."""

    def discard(self) -> None:
        """Release all resources, if the answer is not read. No thread runs a method of this object any more."""


class Producing(abc.ABC):
    """An object that writes a whole stream by itself."""

    #: The answer in place of a stream; ``None``: there is a stream.
    answer: Refusal | None = None
    #: Headers of the upstream's response that the answer of the stream gets too; none before the upstream has answered.
    passed_headers: Sequence[tuple[str, str]] = ()

    @abc.abstractmethod
    def produce(self, writer: Target) -> None:
        """Write the stream to its end, on the producer's thread."""

    @property
    def exchange(self) -> Exchange | None:
        """The request that was not sent yet; ``None``: the upstream has answered."""
        return None

    def answered(self) -> Refusal | None:
        """Read the upstream's answer; send the request first, if that was not done. This may wait.

        :return: :attr:`answer`.
        :raises Exception: the upstream can't be reached, or does not answer.
        """
        return self.answer

    @property
    def can_tap(self) -> bool:
        """Whether the upstream's connection can be read in place of :meth:`produce`; before the request was sent:
        whether that is possible. Nothing is read."""
        return False

    def has_ended(self, timeout: float) -> bool:
        """Whether the upstream has ended its connection already, cleanly or not. Only if :attr:`can_tap` is true.

        :param timeout: seconds to wait for its first bytes.
        """
        return False

    def tap(self, duplicate: Callable[[int], int]) -> Tap:
        """Hand the upstream's connection over: :meth:`produce` can't be called any more. Only if :attr:`can_tap` is
        true.

        :param duplicate: makes another descriptor of a socket, for connections that can be read by that.
        :return: the connection.
        :raises OSError: there are no more descriptors; nothing has changed.
        """
        raise NotImplementedError

    def detached(self, end: Callable[[], object]) -> None:  # noqa: B027  # most ignore it
        """Called when the reactor serves the client.

        :param end: ends the stream. For :meth:`close`.
        """

    @abc.abstractmethod
    def close(self) -> None:
        """Close its upstream. Any thread, any number of times; the stream calls it when it has ended."""
