"""The contract between a broadcast group and the source that fills it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from ..errors import CloseReason

if TYPE_CHECKING:
    from .connection import Connection

__all__ = ["Numbered", "Position", "Source", "Subscriber"]


class Position(NamedTuple):
    """A place in a log. Subscribers compare positions by identity, so each position that is set is a new object."""

    epoch: str
    """Names the log: a log that was started anew has another epoch. ``""``: not known yet."""
    seq: int
    """The number of the last message before this place."""


class Numbered(bytes):
    """A message as it is sent, with its number: higher than that of every message before it in the log."""

    seq: int


class Subscriber(Protocol):
    """Serves one client that lags. Called on the reactor's thread, but for :meth:`read`; nothing else may wait."""

    @property
    def pending(self) -> tuple[int, int]:
        """How many events and bytes wait for the client. Any thread."""
        ...

    def offer(self, messages: Sequence[Any]) -> CloseReason | None:
        """Queue messages, as far as there is room.

        :param messages: messages of the source that has made the subscriber.
        :return: why the client has to be ended, if so: for example, it is too slow.
        """
        ...

    def missed(self) -> None:
        """Messages were not offered, and are in the log."""

    def restarted(self, epoch: str, position: int) -> None:
        """The log was started anew, and goes on after this position."""

    def progressed(self) -> None:
        """The client has taken some bytes, so it is reading."""

    def poll(self) -> list[bytes] | Position | CloseReason:
        """Take the queued messages.

        :return: the messages; none if the log has to be read next; the position of the last message that the client
            was given, if it has all; or why the subscriber has ended.
        """
        ...

    def read(self, size: int) -> list[bytes] | None:
        """Read the next messages from the log. Called on a thread that may wait.

        :param size: about how many bytes, if there are as many.
        :return: the messages; ``None`` if the log can't be read now.
        """
        ...

    def close(self, reason: CloseReason) -> object:
        """Release the subscriber, when the client does not need it any more."""


class Source(Protocol):
    """Fills a group. Called on the reactor's thread, so nothing here may wait."""

    def subscriber_for(self, connection: Connection, position: Position, *, from_log: bool) -> Subscriber:
        """Make the subscriber of a client that lags, from a position on.

        :param from_log: whether the log may have more after the position than will be offered.
        """
        ...

    def left(self, connection: Connection) -> None:
        """A client is closed."""

    def tick(self) -> None:
        """Called twice a second."""
