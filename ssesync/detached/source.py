"""The contract between a broadcast group and the source that fills it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from ..errors import CloseReason

if TYPE_CHECKING:
    from .connection import Connection

__all__ = ["Numbered", "Position", "Source", "Subscriber"]


class Position(NamedTuple):
    """A position in a log. Subscribers compare positions by identity, so each position that is set is a new object."""

    epoch: str
    """Names the log: a log that was started anew has another epoch. ``""``: not known yet."""
    seq: int
    """The number of the last message before this position."""


class Numbered(bytes):
    """A message as it is sent, with its number: higher than that of every message before it in the log."""

    seq: int


class Subscriber(Protocol):
    """Serves one lagging client. Called on the reactor's thread, but for :meth:`read`; no other method may wait."""

    @property
    def pending(self) -> tuple[int, int]:
        """How many events and bytes wait for the client. Any thread."""
        ...

    def offer(self, messages: Sequence[Any]) -> CloseReason | None:
        """Queue messages, until the queue is full.

        :param messages: messages of the source that has made the subscriber.
        :return: why the client must be ended, for example because it is too slow; ``None``: it must not.
        """
        ...

    def missed(self) -> None:
        """Note that messages were not offered, which are in the log."""

    def restarted(self, epoch: str, position: int) -> None:
        """Note that the log was started anew, and continues after this position."""

    def progressed(self) -> None:
        """Note that the client has accepted some bytes, so it reads."""

    def poll(self) -> list[bytes] | Position | CloseReason:
        """Take the queued messages.

        :return: the messages; none if the log has to be read next; the position of the client's last message, if it has
            all; or why the subscriber has ended.
        """
        ...

    def read(self, size: int) -> list[bytes] | None:
        """Read the next messages from the log. Called on a thread that may wait.

        :param size: about how many bytes, if there are as many.
        :return: the messages; ``None`` if the log can't be read now.
        """
        ...

    def freeze(self) -> tuple[Position, list[bytes]] | None:
        """Give the client away. The subscriber is not used after it, but for :meth:`close`.

        :return: the position after which another process continues, and the events to be sent before; ``None`` if the
            subscriber is ending.
        """
        ...

    def close(self, reason: CloseReason) -> object:
        """Release the subscriber, when the client does not need it any more."""


class Source(Protocol):
    """The source of a group. Called on the reactor's thread, so no method may wait."""

    def subscriber_for(self, connection: Connection, position: Position, *, from_log: bool) -> Subscriber:
        """Make the subscriber of a lagging client, from a position on.

        :param connection: the client.
        :param position: the position.
        :param from_log: whether the log may have more messages after the position than will be offered.
        :return: the subscriber.
        """
        ...

    def caught_up(self, connection: Connection, subscriber: Subscriber) -> None:
        """The subscriber of a client has given all that it had. The group serves the client next."""

    def left(self, connection: Connection) -> None:
        """Called when a client is closed."""

    def tick(self) -> None:
        """Called twice a second."""
