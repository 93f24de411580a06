"""The states of a subscriber, and what changes them."""

from __future__ import annotations

import enum

__all__ = ["TRANSITIONS", "Input", "State"]


class State(enum.Enum):
    """The state of a subscriber."""

    # The flags: queues, reads_log, excused, ended.
    STARTING = ("starting", True, False, True, False)
    """Messages are offered, and the position is not known yet: nothing is given, and nothing dropped."""
    LIVE = ("live", True, False, False, False)
    """No gap: the queue continues after the last message that was given to the reader."""
    DRAINING = ("draining", False, False, True, False)
    """Messages after those in the queue were not offered: the reader gets the queue first, then reads the log."""
    CATCHING_UP = ("catching up", True, True, True, False)
    """The log is read, for another reason than a slow client."""
    CATCHING_UP_OVERRUN = ("catching up, overrun", False, True, True, False)
    """The same, and the queue has not taken all messages since the last read began."""
    LAGGING = ("lagging", True, True, False, False)
    """The log is read, since the client was too slow for the queue."""
    LAGGING_OVERRUN = ("lagging, overrun", False, True, False, False)
    """The same, and the queue has not taken all messages since the last read began."""
    COMPLETING = ("completing", False, False, True, False)
    """The queue has the last event that the reader ever gets. When it is empty, the subscriber has ended."""
    ENDING = ("ending", False, False, False, True)
    """It has ended; the reader still gets the queued messages."""
    ENDED = ("ended", False, False, False, True)
    """It has ended, and the queue is empty."""

    #: Whether offered messages are queued.
    queues: bool
    #: Whether the log is to be read next.
    reads_log: bool
    #: If the log has dropped the next events: whether the reader gets a reset. If not, the subscriber was too slow for
    #: the log, and ends.
    excused: bool
    #: Whether the subscriber has ended.
    ended: bool

    def __init__(self, name: str, queues: bool, reads_log: bool, excused: bool, ended: bool) -> None:
        self.queues, self.reads_log, self.excused, self.ended = queues, reads_log, excused, ended


class Input(enum.Enum):
    """The changes of a subscriber's state."""

    START_LIVE = enum.auto()  # start() at the log's end
    START_FROM_LOG = enum.auto()  # start() at another position: the log has all messages that were offered until now
    OVERRUN = enum.auto()  # the queue is full
    MISSED = enum.auto()  # messages were not offered
    DRAINED = enum.auto()  # the queue is empty
    READ = enum.auto()  # a read of the log begins: it finds all messages that the queue has not taken until now
    CAUGHT_UP = enum.auto()  # a read has reached the log's end
    RESTARTED = enum.auto()  # the log was begun anew
    COMPLETED = enum.auto()  # the last event that the reader ever gets was queued
    END = enum.auto()  # a request to end is carried out
    GIVEN = enum.auto()  # the last bytes were given


_RUNNING = frozenset(state for state in State if not state.ended)

# In a state that is not in its row, a change has no effect.
TRANSITIONS: dict[Input, dict[State, State]] = {
    Input.START_LIVE: {
        State.STARTING: State.LIVE,
        State.DRAINING: State.CATCHING_UP,
        State.CATCHING_UP: State.LIVE,
        State.LAGGING: State.LIVE,
    },
    Input.START_FROM_LOG: dict.fromkeys(_RUNNING - {State.CATCHING_UP}, State.CATCHING_UP),
    Input.OVERRUN: {
        State.STARTING: State.CATCHING_UP_OVERRUN,
        State.LIVE: State.LAGGING_OVERRUN,
        State.CATCHING_UP: State.CATCHING_UP_OVERRUN,
        State.LAGGING: State.LAGGING_OVERRUN,
    },
    Input.MISSED: {
        State.STARTING: State.CATCHING_UP_OVERRUN,
        State.LIVE: State.DRAINING,
        State.CATCHING_UP: State.CATCHING_UP_OVERRUN,
        State.LAGGING: State.CATCHING_UP_OVERRUN,
        State.LAGGING_OVERRUN: State.CATCHING_UP_OVERRUN,
    },
    Input.DRAINED: {State.DRAINING: State.CATCHING_UP},
    Input.READ: {State.CATCHING_UP_OVERRUN: State.CATCHING_UP, State.LAGGING_OVERRUN: State.LAGGING},
    Input.CAUGHT_UP: {State.CATCHING_UP: State.LIVE, State.LAGGING: State.LIVE},
    Input.RESTARTED: dict.fromkeys(_RUNNING - {State.STARTING, State.LIVE, State.COMPLETING}, State.LIVE),
    Input.COMPLETED: {State.LIVE: State.COMPLETING},
    Input.END: dict.fromkeys(_RUNNING, State.ENDING),
    Input.GIVEN: {State.ENDING: State.ENDED},
}
