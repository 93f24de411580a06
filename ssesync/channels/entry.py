"""Entries: the events that are appended to a log; and the position where a log begins."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

__all__ = ["CLOSED", "DUPLICATE", "Entry", "Outcome", "Start"]

#: In place of an event's number: it was refused, since its channel is closed, or is a run's and another owner's.
CLOSED = 0
#: In place of an event's number: it is in the log already.
DUPLICATE = -1


class Outcome(NamedTuple):
    """How a run has ended."""

    state: str
    """See :class:`ssesync.channels.runs.state.RunState`."""
    reason: str = ""
    """Why, if the state alone does not show it."""


class Entry(NamedTuple):
    """An event to be appended."""

    channel: str
    body: bytes
    """The event, encoded without an id."""
    final: bool = False
    """Whether it closes its channel: nothing more can be appended."""
    number: int = 0
    """Of an event of a run: its position in the channel, from 1. So an append that is repeated because its answer was
    lost adds no event twice. A number that does not follow the last one is refused. ``0``: an event of no run, or a
    final one."""
    outcome: Outcome | None = None
    """Of a run's final event: how the run ends, written in the same step."""
    owner: str = ""
    """Of an event of a run: the process that owns it. It is refused where the run has another owner by now, or there is
    no such run: a process that was halted can't write into a run that was started anew. ``""``: of any owner."""


class Start(NamedTuple):
    """A position from which channels are read, and which of them are closed."""

    epoch: str
    seq: int
    closed: Mapping[str, int]
    """The number of its final event, by the name of each channel that is closed."""
