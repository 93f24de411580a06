"""Acceptance: the entries that a log appends, and those that it refuses. Redis has the same rules in a script."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from ...errors import ChannelClosed, excerpt
from ..entry import CLOSED, DUPLICATE, Entry

__all__ = ["ACCEPTED", "ChannelState", "accept", "refusal"]

#: In the answer of :func:`accept`: the entry is to be appended.
ACCEPTED = 1


@dataclass(slots=True)
class ChannelState:
    """The part of a channel's state on which it depends which entries are accepted."""

    closed: bool = False
    is_run: bool = False
    events: int = 0
    """Of a run's channel: the number of its events. None of them is ever trimmed."""
    owner: str = ""
    """Of a run's channel: the run's owner."""


def refusal(channel: str) -> ChannelClosed:
    """The error for an event that was refused.

    :param channel: its channel.
    :return: the error.
    """
    return ChannelClosed(
        f"the channel {excerpt(channel)} is closed: its final event was published, or it belongs to a run, to which "
        "only the run's producer writes"
    )


def accept(entries: Iterable[Entry], state_of: Callable[[str], ChannelState], *, whole: bool) -> list[int]:
    """Decide which entries are appended. Those before an entry count as appended for it.

    :param entries: the entries.
    :param state_of: called with the name of a channel, once for each; returns its state before the first entry. The
        state is changed here.
    :param whole: raise if an entry is refused.
    :return: for each entry ``1`` if it is to be appended, else ``CLOSED`` or ``DUPLICATE``.
    :raises ChannelClosed: with ``whole``: an entry is refused.
    """
    states: dict[str, ChannelState] = {}
    answers = []
    for entry in entries:
        state = states.get(entry.channel)
        if state is None:
            state = states[entry.channel] = state_of(entry.channel)
        answer = _accept_run(entry, state) if state.is_run else _accept_plain(entry, state)
        if answer == ACCEPTED:
            state.events += 1
            state.closed = entry.final
        elif answer == CLOSED and whole:
            raise refusal(entry.channel)
        answers.append(answer)
    return answers


def _accept_plain(entry: Entry, state: ChannelState) -> int:
    # An event of a run: the run is not there any more.
    of_run = entry.number or entry.owner or entry.outcome is not None
    return CLOSED if state.closed or of_run else ACCEPTED


def _accept_run(entry: Entry, state: ChannelState) -> int:
    if entry.owner and entry.owner != state.owner:
        return CLOSED
    # The final event has the last number, whichever process has written it.
    if 0 < entry.number <= state.events - state.closed:
        return DUPLICATE
    if state.closed or entry.number > state.events + 1 or entry.final != (entry.outcome is not None):
        return CLOSED
    return ACCEPTED if entry.number or entry.final else CLOSED
