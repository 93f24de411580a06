"""What subscribers and broadcast groups know of a broker: its log, and the part of it that is in this process."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple, Protocol

from ..detached.source import Position
from .dispatcher import Dispatcher
from .message import Message

__all__ = ["Log", "Page", "Position", "ProcessBroker", "merged"]


class Page(NamedTuple):
    """Consecutive events of a log, after some position."""

    messages: list[Message]
    complete: bool
    """Whether the log has no more."""
    lost: str = ""
    """Why events may be missing here that the log had once; ``""`` if none are."""
    epoch: str = ""
    head: int = 0
    """The number of the log's last event, in whatever channel."""


class Log(Protocol):
    """What readers need of a broker."""

    def read(self, epoch: str, after: int, channels: Iterable[str], patterns: Iterable[str], limit: int) -> Page:
        """Read the events of channels after a position, as they are at one moment.

        :param epoch: of the position.
        :param after: the position's number.
        :param channels: names of channels.
        :param patterns: patterns of names.
        :param limit: how many events at most.
        :return: the events in order, or why they can't be told.
        :raises BrokerError: the log can't be read.
        """

    def count(self, name: str, by: int) -> None:
        """Add to a counter of the broker's. Takes no lock that could be waited for.

        :param name: the counter's name.
        :param by: how much to add.
        """


class ProcessBroker(Log, Protocol):
    """What those that add members to its dispatcher need of a broker."""

    #: The subscribers of this process. Another one in a forked child.
    dispatcher: Dispatcher

    @property
    def closed(self) -> bool:
        """Whether it was closed."""

    def position(self) -> str:
        """Ask for the id of the log's last event.

        :return: the id.
        :raises BrokerError: the log can't be reached or used.
        """


def merged(messages: Iterable[Message], limit: int, epoch: str, head: int) -> Page:
    """Make a page.

    :param messages: in order, from however many channels.
    :param limit: how many are taken at most.
    :param epoch: the log's epoch.
    :param head: the number of the log's last event.
    :return: the page; it is complete if there were no more messages than ``limit``.
    """
    page: list[Message] = []
    for message in messages:
        if len(page) == limit:
            return Page(page, False, "", epoch, head)
        page.append(message)
    return Page(page, True, "", epoch, head)
