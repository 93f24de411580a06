"""The contracts between ``server`` and a relay, an object of ``client`` that writes a whole stream.

``server`` and ``client`` never import each other. Both import this module, and so does ``detached``, where the reactor
reads a relay's upstream by its :class:`Tap`.
"""

from __future__ import annotations

import abc
from collections.abc import Callable
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
    """What a :class:`Producing` object needs of a stream's :class:`ssesync.Writer`."""

    cancelled: CancelToken

    def write(self, item: Any) -> None:
        """Write an event."""

    def write_raw(self, data: bytes, *, events: int) -> None:
        """Write bytes as they are."""


class Tap(Protocol):
    """The connection to an upstream, taken from its HTTP client. For one thread at a time; nothing here waits."""

    body: BodyDecoder
    """Finds the body in what is received."""
    held: bytes
    """What the HTTP client had received of the body. It comes before all that :meth:`receive` gives."""
    idle_timeout: float | None
    """Seconds without a byte after which the upstream counts as broken."""
    max_event_size: int
    """Bytes of an unfinished event that are buffered."""

    def fileno(self) -> int:
        """The descriptor to wait for until there is something to be received."""
        ...

    def receive(self) -> bytes | None:
        """Receive what is there.

        :return: ``None``: nothing now; ``b""``: the connection has ended.
        :raises OSError: it broke, or its TLS was truncated.
        """

    def is_pending(self) -> bool:
        """Whether there is something to be received that the descriptor does not show."""
        ...

    def close(self) -> None:
        """Close the connection. Any number of times."""


class Exchange(Protocol):
    """A request to an upstream that is still to be made; see ``client/asking.py``."""

    @property
    def idle_timeout(self) -> float | None:
        """Seconds to wait for the upstream's answer."""

    def send(self) -> int:
        """Connect, and send the request. This may wait.

        :return: the descriptor that has something to be received when the answer comes; -1: it is there.
        :raises Exception: the upstream can't be reached.
        """

    def close(self) -> None:
        """End what is in progress. Any thread, any number of times."""

    def discard(self) -> None:
        """Release all, where the answer is not read. No thread is in here any more."""


class Producing(abc.ABC):
    """An object that writes a whole stream by itself."""

    #: The answer in place of a stream; ``None``: there is a stream.
    answer: Refusal | None = None

    @abc.abstractmethod
    def produce(self, writer: Target) -> None:
        """Write the stream to its end, on the producer's thread."""

    @property
    def exchange(self) -> Exchange | None:
        """The request that is still to be made; ``None``: the upstream has answered."""
        return None

    def answered(self) -> Refusal | None:
        """Read the upstream's answer, and make the request before if that was not done. This may wait.

        :return: :attr:`answer`.
        :raises Exception: the upstream can't be reached, or does not answer.
        """
        return self.answer

    @property
    def can_tap(self) -> bool:
        """Whether its upstream's connection can be read in place of :meth:`produce`, or perhaps, where it was not asked
        yet. Nothing is touched."""
        return False

    def has_ended(self, timeout: float) -> bool:
        """Whether the upstream has ended its connection already, broken off perhaps. Only where :attr:`can_tap` is.

        :param timeout: seconds to wait for its first bytes.
        """
        return False

    def tap(self, duplicate: Callable[[int], int]) -> Tap:
        """Give the upstream's connection away: :meth:`produce` can't be called any more. Only where :attr:`can_tap` is.

        :param duplicate: makes another descriptor of a socket, where the connection can go on with that.
        :raises OSError: there are no more descriptors; nothing has happened.
        """
        raise NotImplementedError

    def detached(self, end: Callable[[], object]) -> None:  # noqa: B027  # most have nothing to note
        """Note that the reactor serves the client.

        :param end: ends the stream. For :meth:`close`.
        """

    @abc.abstractmethod
    def close(self) -> None:
        """Release what it reads from. Any thread, any number of times; the stream calls it when it has ended."""
