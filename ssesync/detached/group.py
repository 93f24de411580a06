"""The contract between a connection and what gives it its bytes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from .accounting import Totals
from .state import TRANSITIONS, State

if TYPE_CHECKING:
    from .connection import Connection

__all__ = ["Group", "check_transition"]


class Group(Protocol):
    """What gives clients their bytes: one source for all of them (a broadcast group), or one source for each (feeds).

    Called on the reactor's thread, but for :meth:`pending_of`; nothing here may wait.
    """

    totals: Totals
    """What all clients in sync were sent together."""
    last_write: float
    """When they were last sent something, on the monotonic clock."""

    def move(self, connection: Connection, state: State) -> None:
        """Change the state of a client. Nothing else does.

        :raises RuntimeError: this state can't follow the one that the client is in.
        """

    def pending_of(self, connection: Connection) -> tuple[int, int]:
        """Count what waits for a client, and was not given to its connection yet. Any thread.

        :return: events and bytes.
        """
        ...

    def progressed(self, connection: Connection) -> None:
        """A client has taken some of what waits for it."""

    def drained(self, connection: Connection) -> None:
        """A client has taken all that waited for it."""

    def take_rest(self, connection: Connection) -> tuple[bytes, int]:
        """Take what is queued for a client that is about to end.

        :return: that, and how many events it is.
        """
        ...

    def left(self, connection: Connection) -> None:
        """A client is closed."""

    def tick(self, now: float) -> None:
        """Called twice a second: cut off clients that have stalled, send keep-alives."""


def check_transition(before: State, state: State) -> None:
    """Check that a state may follow another one.

    :raises RuntimeError: it may not.
    """
    if state not in TRANSITIONS[before]:
        raise RuntimeError(f"a detached connection can't go from {before.value!r} to {state.value!r}")
