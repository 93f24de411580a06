"""The states of a detached connection.

A connection is in one :class:`State` at a time, and :data:`TRANSITIONS` is the table of the states that may follow.
Only :meth:`ssesync.detached.broadcast.BroadcastGroup.move` changes the state, together with the sets of clients that
depend on it.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping

__all__ = ["OVER", "RUNNING", "TRANSITIONS", "State"]


class State(enum.Enum):
    """The state of a detached client."""

    ARRIVING = "arriving"
    """Made on the server's thread; the reactor's thread does not have it yet."""
    OPENING = "opening"
    """Registered: its head is being sent, then its position is compared with the group's."""
    IN_SYNC = "in sync"
    """It was sent all messages of its group, and has accepted them. A broadcast is one send."""
    DRAINING = "draining"
    """It has missed no message, but has not accepted the end of the last send yet."""
    AHEAD = "ahead"
    """Its position is after the group's. It is in sync as soon as the group reaches that position."""
    LAGGING = "lagging"
    """It has missed messages. It gets them from a subscriber of its own, which has a queue and reads the log."""
    FROZEN = "frozen"
    """It is sent nothing, as another process is about to serve it. If that fails, it is served here again."""
    ENDING = "ending"
    """It is closed as soon as it has accepted the unsent bytes, the trailer included."""
    CLOSED = "closed"
    """Its descriptor is closed."""


#: The client gets messages, now or after it has caught up.
RUNNING = frozenset((State.IN_SYNC, State.DRAINING, State.AHEAD, State.LAGGING))
#: It gets no more bytes except the trailer.
OVER = frozenset((State.ENDING, State.CLOSED))

#: Which states may follow a state.
TRANSITIONS: Mapping[State, frozenset[State]] = {
    State.ARRIVING: frozenset((State.OPENING, State.CLOSED)),
    State.OPENING: RUNNING | OVER,
    State.IN_SYNC: frozenset((State.DRAINING, State.LAGGING, State.FROZEN)) | OVER,
    State.DRAINING: frozenset((State.IN_SYNC, State.LAGGING, State.FROZEN)) | OVER,
    State.AHEAD: RUNNING | {State.FROZEN} | OVER,  # AHEAD again: the group has not reached it yet
    State.LAGGING: frozenset((State.IN_SYNC, State.DRAINING, State.AHEAD, State.FROZEN)) | OVER,
    State.FROZEN: RUNNING | {State.CLOSED},
    State.ENDING: frozenset((State.CLOSED,)),
    State.CLOSED: frozenset(),
}
