"""The part of a broker that subscribers and broadcast groups use: its log, and its dispatcher in this process."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Mapping
from types import MappingProxyType
from typing import NamedTuple, Protocol

from ..detached.source import Position
from ..errors import BrokerClosed, BrokerDamaged, BrokerError, CloseReason
from ..retry import FailureLog
from .dispatcher import Dispatcher
from .entry import Start
from .message import Message

__all__ = ["Log", "LogReader", "Names", "Page", "Position", "ProcessBroker", "merged"]

Names = tuple[Collection[str], Collection[str]]
"""Names of channels, and patterns of more names."""

NONE_CLOSED: Mapping[str, int] = MappingProxyType({})
"""The closed channels, where there are none."""

# Seconds until a log that could not be read is read again, first and longest: thousands may wait at the same time.
_RETRY = (0.2, 3.0)
# How often the first event of a new subscriber is looked for, while the log drops each one that was found.
_STARTS = 20


class Page(NamedTuple):
    """Consecutive events of a log, after some position."""

    messages: list[Message]
    complete: bool
    """Whether the log has no more."""
    lost: str = ""
    """Why events that the log once had may be missing here; ``""`` if none are."""
    epoch: str = ""
    head: int = 0
    """The number of the log's last event, in whatever channel."""
    closed: Mapping[str, int] = NONE_CLOSED
    """The number of its final event, by the name of each of the channels that is closed. Not of those that a pattern
    has found."""
    start: int | None = None
    """The number that the page begins after, if it is not the one that was asked for."""


class Log(Protocol):
    """A broker's log, as its readers use it."""

    def read(self, epoch: str, after: int, channels: Iterable[str], patterns: Iterable[str], limit: int) -> Page:
        """Read the events of channels after a position, as they are at one moment.

        :param epoch: of the position.
        :param after: the position's number.
        :param channels: names of channels.
        :param patterns: patterns of names.
        :param limit: how many events at most.
        :return: the events in order, or the reason why some may be missing.
        :raises BrokerError: the log can't be read.
        """
        ...

    def start_of(self, channels: Iterable[str], patterns: Iterable[str], last: int | None) -> Start:
        """Find where to begin to read channels.

        :param channels: names of channels.
        :param patterns: patterns of names.
        :param last: how many of their last events are to be read, as far as the log has as many; ``0``: none, the
            position is the log's end; ``None``: all that the log has.
        :return: the position, and which of the channels are closed, as they are at one moment.
        :raises BrokerError: the log can't be read.
        """
        ...

    def is_run(self, channels: Collection[str], patterns: Collection[str]) -> bool:
        """Whether these are one channel, a run's. The log has all of its events.

        :param channels: names of channels.
        :param patterns: patterns of names.
        :return: whether they are.
        :raises BrokerError: the log can't be read.
        """
        ...

    def count(self, name: str, by: int) -> None:
        """Add to a counter of the broker. It waits for no lock.

        :param name: the counter's name.
        :param by: how much to add.
        """


class LogReader:
    """Reads a log for one subscriber, and logs failures.

    :param log: the log.
    :param names: the channels and patterns whose events are read.
    """

    __slots__ = ("_failures", "_log", "_names", "last", "retry_at")

    def __init__(self, log: Log, names: Names) -> None:
        self._log = log
        self._names = names
        self._failures: FailureLog | None = None
        #: When to read again after the log could not be read, on the monotonic clock.
        self.retry_at = 0.0
        #: Until the first read: how many events the subscriber has asked for, as in :meth:`Log.start_of`. The log may
        #: drop the first of them before it is read, which is no gap for a client that has none. ``0``: the subscriber
        #: goes on from a position.
        self.last: int | None = 0

    def read(
        self, position: Position, names: Names | None, limit: int, is_complete: Callable[[Mapping[str, int]], bool]
    ) -> Page | CloseReason | None:
        """Read the events after a position. If the log has dropped the next events and adds no more, the page leads to
        the first event that it still has; so does one of a run, which was started anew then.

        :param position: the position.
        :param names: the channels and patterns, in place of those that the reader was made with.
        :param limit: how many events at most.
        :param is_complete: whether no event can be added, if these channels are closed.
        :return: the events; or the reason why the subscriber must end; or ``None``: try again at ``retry_at``.
        """
        try:
            names = names or self._names
            page = self._log.read(*position, *names, limit)
            if page.lost and self.last != 0:
                page = self._begin_again(page, names, limit, self.last)
            self.last = 0
            if page.lost and ((page.closed and is_complete(page.closed)) or self._log.is_run(*names)):
                start = self._log.start_of(*names, None)
                page = page._replace(complete=False, epoch=start.epoch, head=start.seq)
        except BrokerClosed:
            return CloseReason.SHUTDOWN
        except BrokerError as error:
            self._failures = self._failures or FailureLog("a subscriber: reading the log", *_RETRY)
            self.retry_at = time.monotonic() + self._failures.failed(error)
            return CloseReason.ERROR if isinstance(error, BrokerDamaged) else None
        if self._failures is not None:
            self._failures.succeeded()
            self._failures, self.retry_at = None, 0.0
        return page

    def _begin_again(self, page: Page, names: Names, limit: int, last: int | None) -> Page:
        for _ in range(_STARTS):
            start = self._log.start_of(*names, last)
            page = self._log.read(start.epoch, start.seq, *names, limit)._replace(start=start.seq)
            if not page.lost:
                break
        return page


class ProcessBroker(Log, Protocol):
    """A broker, as used by objects that add members to its dispatcher."""

    #: Whether several processes can have the same log.
    is_shared: bool
    #: The subscribers of this process. Another one in a forked child.
    dispatcher: Dispatcher

    @property
    def closed(self) -> bool:
        """Whether it was closed."""
        ...

    def position(self) -> str:
        """Read the id of the log's last event.

        :return: the id.
        :raises BrokerError: the log can't be reached or used.
        """
        ...


def merged(
    messages: Iterable[Message], limit: int, epoch: str, head: int, closed: Mapping[str, int] = NONE_CLOSED
) -> Page:
    """Make a page.

    :param messages: in order, from any number of channels.
    :param limit: how many the page has at most.
    :param epoch: the log's epoch.
    :param head: the number of the log's last event.
    :param closed: see :class:`Page`.
    :return: the page; it is complete if there were no more messages than ``limit``.
    """
    page: list[Message] = []
    for message in messages:
        if len(page) == limit:
            return Page(page, False, "", epoch, head, closed)
        page.append(message)
    return Page(page, True, "", epoch, head, closed)
