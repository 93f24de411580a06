"""The states of a run, and its record in the log."""

from __future__ import annotations

import enum
from typing import NamedTuple

__all__ = ["TRANSITIONS", "RunRecord", "RunState"]


class RunState(str, enum.Enum):
    """The state of a run. A member is equal to its text."""

    QUEUED = "queued"
    """It has no producer yet."""
    RUNNING = "running"
    """A process owns it and produces."""
    DONE = "done"
    """Its producer has ended without an error."""
    FAILED = "failed"
    """Its producer has raised an error, or the run has passed one of its bounds."""
    STOPPED = "stopped"
    """``stop()`` was called."""
    INTERRUPTED = "interrupted"
    """Its process has ended, or no process has begun it in time."""

    def __str__(self) -> str:
        return self.value

    @property
    def ended(self) -> bool:
        """Whether it is a final state."""
        return self not in (RunState.QUEUED, RunState.RUNNING)


_ENDS = frozenset({RunState.DONE, RunState.FAILED, RunState.STOPPED, RunState.INTERRUPTED})

#: What may follow each state. A run has one final event, so it ends once.
TRANSITIONS: dict[RunState, frozenset[RunState]] = {
    RunState.QUEUED: frozenset({RunState.RUNNING, *_ENDS}),
    RunState.RUNNING: _ENDS,
    **dict.fromkeys(_ENDS, frozenset()),
}


class RunRecord(NamedTuple):
    """A run's record in the log."""

    name: str
    """Its name, which is that of its channel."""
    owner: str
    """The process that produces it; ``""`` while it is queued."""
    state: RunState
    subject: str
    """The user that the run belongs to."""
    fingerprint: str
    """Of its arguments: a start of the same name with another fingerprint is a conflict."""
    began: float
    """When it was added, as seconds since 1970."""
    retain: float
    """For how many seconds it is kept after its end."""
    deadline: float
    """When a run that is still queued is ended, as seconds since 1970; ``0``: never."""
    ended: float = 0.0
    """When it has ended; ``0`` while it has not."""
    reason: str = ""
    """Why it has ended, if the state alone does not show it."""
    end_type: str = "end"
    """The type of its final event, which any process may have to write."""

    def is_called(self, name: str, began: float) -> bool:
        """Whether this is the run of a name that was added at a time, and not an earlier or later one of this name.

        :param name: the name.
        :param began: the time.
        :return: whether it is.
        """
        return self.name == name and self.began == began

    def is_same(self, other: RunRecord) -> bool:
        """Whether another record is one of the same run, perhaps at another time.

        :param other: the other record.
        :return: whether it is.
        """
        return self.is_called(other.name, other.began)
