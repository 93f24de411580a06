"""Detached clients that don't take what their group is given, or not yet: each is fed from a queue of its own.

Such a client comes with a last event ID, or takes less than there is. It has a subscription of its own until it has
caught up, with the same queue, policy and readings of the log as a served one.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from ..detached.loop import Connection, Group, Loop
from ..errors import CloseReason
from ..wire.encoder import KEEP_ALIVE
from .message import Message
from .policy import Policy
from .subscription import Subscription

if TYPE_CHECKING:
    from .broker import Broker

__all__ = ["Lagging", "LaggingGroup", "read_log"]

logger = logging.getLogger("ssesync")

# Bytes that are read from the log for a client at a time, about, and events of one reading at most.
_READ, _PAGE = 256 * 1024, 1000


class Lagging:
    """What is kept for a client that has missed something."""

    __slots__ = ("busy", "subscription")

    def __init__(self, subscription: Subscription) -> None:
        self.subscription = subscription
        #: Whether a helper reads the log for it.
        self.busy = False

    def offer(self, messages: Sequence[Message]) -> bool:
        """Keep what is published meanwhile, as far as there is room; whether the client may stay."""
        inbox = self.subscription.inbox
        if self.busy:
            inbox.still_reads()  # it waits for this process
        return inbox.offer_all(messages)

    def read(self) -> list[bytes] | None:
        """What the log has for the client next; ``None`` at its end. On a reader's thread."""
        subscription = self.subscription
        items = read_log(subscription)
        # As much as may be at a time: by rounds of small pages, thousands who come back at once while much is published
        # would never get there.
        while items and subscription.inbox.behind and (size := sum(map(len, items))) < _READ:
            subscription.page = max(1, min(_PAGE, (_READ - size) * len(items) // size))
            more = read_log(subscription)
            if not more:
                break
            items += more
        return items


def read_log(subscription: Subscription) -> list[bytes] | None:
    """What the log has for a subscription; ``None`` at its end. On a reader's thread."""
    try:
        return subscription.take(0)
    except Exception:
        logger.exception("the log can't be read for a detached stream, which ends")
        subscription.cancel(CloseReason.ERROR)
        return None


class LaggingGroup(Group):
    """A group whose clients may be ahead of it, late or behind, and come back into step by themselves."""

    def __init__(self, broker: Broker, policy: Policy, keep_alive: float | None, current: Loop) -> None:
        super().__init__(current, keep_alive)
        self._broker = broker
        self._policy = policy
        self._epoch = ""
        self._position = -1  # the last that all in step were given
        self._fresh: dict[Connection, tuple[str, int]] = {}  # in step after this place, which lies before the group
        self._late: dict[Connection, None] = {}  # have still to take the last send, and missed nothing since
        self._behind: dict[Connection, Lagging] = {}

    def all(self) -> Iterator[Connection]:
        """All clients, but for those that end already."""
        yield from self._in_step.values()
        yield from (*self._fresh, *self._late, *self._behind)

    def pending_of(self, connection: Connection) -> tuple[int, int]:
        """See :class:`Group`."""
        behind = self._behind.get(connection)
        return (0, 0) if behind is None else behind.subscription.pending

    def left(self, connection: Connection) -> None:
        """See :class:`Group`."""
        self._fresh.pop(connection, None)
        self._late.pop(connection, None)
        behind = self._behind.pop(connection, None)
        if behind is not None:
            behind.subscription.cancel()

    # What makes a client leave the step.

    def fell_behind(self, connection: Connection) -> None:
        """See :class:`Group`."""
        self._late[connection] = None

    def _fall_behind(self, connection: Connection, epoch: str, cursor: int, *, log: bool = False) -> None:
        member = connection.member
        subscription = Subscription(self._broker, member.channels, member.patterns, self._policy)
        subscription.inbox.start(epoch, cursor, behind=log)
        self._behind[connection] = Lagging(subscription)

    def _offer(self, connections: Iterable[Connection], messages: list[Message], position: int) -> None:
        """Keep messages for clients that are late or behind. The late ones were given all up to a position."""
        for connection in connections:
            if connection in self._late:
                del self._late[connection]
                self._fall_behind(connection, self._epoch, position)
            behind = self._behind[connection]
            if not behind.offer(messages):
                self.loop.end(connection, behind.subscription.inbox.reason or CloseReason.OVERFLOW)

    def _leave_to_log(self, connections: list[Connection]) -> None:
        """Have clients read the log, each by itself, from the last that they were given."""
        for connection in connections:
            behind = self._behind.get(connection)
            if behind is not None:
                behind.subscription.inbox.missed()
            else:
                self.step_out(connection)
                self._late.pop(connection, None)
                epoch, cursor = self._fresh.pop(connection, (self._epoch, self._position))
                self._fall_behind(connection, epoch, cursor, log=True)
            if not connection.waits:
                self._serve(connection)

    # What brings it back.

    def _step_in_after(self, connection: Connection, epoch: str, cursor: int) -> None:
        if connection.closed or connection.ending is not None:
            return
        if epoch != self._epoch or cursor > self._position:
            self._fresh[connection] = epoch, cursor
        elif connection.waits:
            self._late[connection] = None
        else:
            self.step_in(connection)

    def made_progress(self, connection: Connection) -> None:
        """See :class:`Group`."""
        behind = self._behind.get(connection)
        if behind is not None:
            behind.subscription.inbox.still_reads()

    def caught_up(self, connection: Connection) -> None:
        """See :class:`Group`."""
        if connection in self._behind:
            self._serve(connection)
        elif connection in self._late:
            del self._late[connection]
            self._step_in_after(connection, self._epoch, self._position)

    def _serve(self, connection: Connection) -> None:
        """Give a client what is there for it alone, and let it keep step again when there is no more."""
        behind = self._behind.get(connection)
        if behind is None:
            return  # it has ended with the last that it was given
        inbox = behind.subscription.inbox
        while not (connection.closed or connection.waits or behind.busy or connection.ending):
            if inbox.look() is not None:
                behind.busy = True
                self.loop.read(functools.partial(self._read_log_for, connection, behind))
                return
            items = inbox.take(0)
            if items is None:
                self.loop.end(connection, inbox.reason or CloseReason.CANCELLED)
            elif items:
                connection.give(b"".join(items), len(items))
            elif not inbox.behind:
                del self._behind[connection]
                self._step_in_after(connection, inbox.epoch, inbox.cursor)
                return

    def _read_log_for(self, connection: Connection, behind: Lagging) -> None:
        items = behind.read()
        self.loop.call_soon(lambda: self._has_read_for(connection, items))

    def _has_read_for(self, connection: Connection, items: list[bytes] | None) -> None:
        behind = self._behind.get(connection)
        if behind is None or connection.ending is not None:
            return
        behind.busy = False
        inbox = behind.subscription.inbox
        if items is None:
            self.loop.end(connection, inbox.reason or CloseReason.CANCELLED)
            return
        if items:
            connection.give(b"".join(items), len(items))
        if items or not inbox.behind:  # else the next tick tries again
            self._serve(connection)

    def last_for(self, connection: Connection) -> tuple[bytes, int]:
        """See :class:`Group`."""
        behind = self._behind.get(connection)
        if behind is None or behind.busy or behind.subscription.inbox.behind:
            return b"", 0
        items = behind.subscription.inbox.take(0) or ()
        return b"".join(items), len(items)

    def tick(self, now: float) -> None:
        """See :class:`Group`."""
        super().tick(now)
        for connection in list(self._behind):
            if connection in self._behind:
                self._serve(connection)
        if self.keep_alive is None:
            return
        for connection in (*self._fresh, *self._behind):
            # Not into the middle of what waits, and who takes that needs none.
            silent = connection.written + self.keep_alive <= now
            if silent and not connection.waits and connection.ending is None:
                connection.give(KEEP_ALIVE, 0, 1)
