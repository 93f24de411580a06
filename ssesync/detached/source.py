"""The contracts between connections and what fills them: a group, and of a broadcast group its source."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol

from ..errors import CloseReason

if TYPE_CHECKING:
    from .accounting import Totals
    from .connection import Connection
    from .state import State

__all__ = ["Group", "Numbered", "Position", "Source", "Subscriber"]


class Group(Protocol):
    """What fills connections: of clients that all get the same, or each its own. But for the first two on the reactor's
    thread; nothing may wait."""

    totals: Totals
    """What all in sync were sent together."""
    last_write: float
    """When that was last so, on the monotonic clock."""

    def pending_of(self, connection: Connection) -> tuple[int, int]:
        """Count what is there for a client and not sent. Any thread.

        :return: events and bytes.
        """

    def is_resumable(self, connection: Connection) -> bool:
        """Whether a client was given an event ID to come back with. Any thread."""

    def move(self, connection: Connection, state: State) -> None:
        """Change the state of a client, and what follows from it."""

    def drained(self, connection: Connection) -> None:
        """A client has taken all that waited for it."""

    def progressed(self, connection: Connection) -> None:
        """A client has taken some of what waits for it."""

    def take_rest(self, connection: Connection) -> tuple[bytes, int]:
        """Take what is there for a client that is about to end, which gets nothing more.

        :return: that, and how many events it is.
        """

    def left(self, connection: Connection) -> None:
        """A client is closed."""

    def tick(self, now: float) -> None:
        """Called twice a second."""


class Position(NamedTuple):
    """A place in a log. Subscribers compare positions by identity: each one that is set is a new object."""

    epoch: str
    """Names the log, as one that was started anew has another; ``""``: not known yet."""
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

    @property
    def position(self) -> Position | None:
        """The position of the last message that the client was given; ``None`` while the log has to be read."""

    def offer(self, messages: Sequence[Numbered]) -> CloseReason | None:
        """Queue messages, as far as there is room.

        :return: why the client has to be ended, if so: it is too slow, say.
        """

    def missed(self) -> None:
        """There are messages that were not offered: they are in the log."""

    def restarted(self, position: Position) -> None:
        """The log was started anew, and goes on after this position."""

    def progressed(self) -> None:
        """The client has taken some of what was sent, so it does read."""

    def poll(self) -> Sequence[bytes] | CloseReason:
        """Take what is queued.

        :return: that, which is empty if there is nothing or the log has to be read; or why the subscriber has ended.
        """

    def read(self) -> list[bytes]:
        """Read what comes next from the log. Called on a thread that may wait.

        :return: that; empty if the log can't be read now, or the subscriber has ended.
        """

    def cancel(self) -> None:
        """Release it: the client does not need it any more."""


class Source(Protocol):
    """What fills a group. Called on the reactor's thread; nothing here may wait."""

    def subscriber_for(self, connection: Connection, position: Position, *, from_log: bool) -> Subscriber:
        """Make what serves a client that lags, from a position on.

        :param from_log: whether the log may have more after the position than will be offered.
        """

    def left(self, connection: Connection) -> None:
        """A client is closed."""

    def tick(self) -> None:
        """Called twice a second."""
