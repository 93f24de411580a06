"""The contract between a connection and its group."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from .accounting import Totals
from .state import TRANSITIONS, State

if TYPE_CHECKING:
    from .connection import Connection

__all__ = ["Group", "check_transition"]


class Group(Protocol):
    """Clients with one common source (a broadcast group), or with a source each (feeds).

    Called on the reactor's thread, but for :meth:`pending_of`; no method may wait.
    """

    totals: Totals
    """The figures of the sends to all clients in sync."""
    last_write: float
    """The time of the last of them, on the monotonic clock."""

    def move(self, connection: Connection, state: State) -> None:
        """Change the state of a client. No other method does.

        :raises RuntimeError: this state can't follow the one that the client is in.
        """

    def pending_of(self, connection: Connection) -> tuple[int, int]:
        """Count the events for a client that were not passed to its connection yet. Any thread.

        :return: events and bytes.
        """
        ...

    def progressed(self, connection: Connection) -> None:
        """Called when a client has accepted some of its unsent bytes."""

    def drained(self, connection: Connection) -> None:
        """Called when a client has accepted all its unsent bytes."""

    def take_rest(self, connection: Connection) -> tuple[bytes, int]:
        """Take the queued events of a client that is about to end.

        :return: the events, and their number.
        """
        ...

    def left(self, connection: Connection) -> None:
        """Called when a client is closed."""

    def tick(self, now: float) -> None:
        """Called twice a second: cut off clients that have stalled, send keep-alives."""


def check_transition(before: State, state: State) -> None:
    """Check that a state may follow another one.

    :raises RuntimeError: it may not.
    """
    if state not in TRANSITIONS[before]:
        raise RuntimeError(f"a detached connection can't go from {before.value!r} to {state.value!r}")
