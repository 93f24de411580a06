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
from .subscriber import Subscriber

if TYPE_CHECKING:
    from .broker import Broker

__all__ = ["Lagging", "LaggingGroup", "read_log"]

logger = logging.getLogger("ssesync")

# Bytes that are read from the log for a client at a time, about, and events of the first read and of any.
_READ, _FIRST, _PAGE = 256 * 1024, 100, 1000


class Lagging:
    """What is kept for a client that has missed something."""

    __slots__ = ("busy", "subscriber")

    def __init__(self, subscriber: Subscriber) -> None:
        self.subscriber = subscriber
        #: Whether a helper reads the log for it.
        self.busy = False

    def offer(self, messages: Sequence[Message]) -> bool:
        """Keep what is published meanwhile, as far as there is room; whether the client may stay."""
        if self.busy:
            self.subscriber.touch()  # it waits for this process
        return self.subscriber.offer(messages)

    def read(self) -> list[bytes]:
        """What the log has for the client next. On a reader's thread."""
        items = read_log(self.subscriber, _FIRST)
        # As much as may be at a time: by rounds of small pages, thousands who come back at once while much is published
        # would never get there.
        while items and self.subscriber.state.reads_log and (size := sum(map(len, items))) < _READ:
            more = read_log(self.subscriber, max(1, min(_PAGE, (_READ - size) * len(items) // size)))
            if not more:
                break
            items += more
        return items


def read_log(subscriber: Subscriber, limit: int) -> list[bytes]:
    """What the log has for a subscriber; empty if it can't be read now. On a reader's thread."""
    try:
        return subscriber.read(limit)
    except Exception:
        logger.exception("the log can't be read for a detached stream, which ends")
        subscriber.close(CloseReason.ERROR, discard=True)
        return []


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
        return (0, 0) if behind is None else behind.subscriber.pending

    def left(self, connection: Connection) -> None:
        """See :class:`Group`."""
        self._fresh.pop(connection, None)
        self._late.pop(connection, None)
        behind = self._behind.pop(connection, None)
        if behind is not None:
            behind.subscriber.close(CloseReason.CANCELLED, discard=True)

    # What makes a client leave the step.

    def fell_behind(self, connection: Connection) -> None:
        """See :class:`Group`."""
        self._late[connection] = None

    def _fall_behind(self, connection: Connection, epoch: str, cursor: int, *, log: bool = False) -> None:
        member = connection.member
        subscriber = Subscriber(self._broker, self._policy, member.channels, member.patterns)
        subscriber.start(epoch, cursor, from_log=log)
        self._behind[connection] = Lagging(subscriber)

    def _offer(self, connections: Iterable[Connection], messages: list[Message], position: int) -> None:
        """Keep messages for clients that are late or behind. The late ones were given all up to a position."""
        for connection in connections:
            if connection in self._late:
                del self._late[connection]
                self._fall_behind(connection, self._epoch, position)
            behind = self._behind[connection]
            if not behind.offer(messages):
                self.loop.end(connection, behind.subscriber.reason or CloseReason.OVERFLOW)

    def _leave_to_log(self, connections: list[Connection]) -> None:
        """Have clients read the log, each by itself, from the last that they were given."""
        for connection in connections:
            behind = self._behind.get(connection)
            if behind is not None:
                behind.subscriber.missed()
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
            behind.subscriber.touch()

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
        subscriber = behind.subscriber
        while not (connection.closed or connection.waits or behind.busy or connection.ending):
            items = subscriber.poll()
            if items is None:
                self.loop.end(connection, subscriber.reason or CloseReason.CANCELLED)
            elif items:
                connection.give(b"".join(items), len(items))
            elif subscriber.state.reads_log:
                behind.busy = True
                self.loop.read(functools.partial(self._read_log_for, connection, behind))
                return
            else:
                del self._behind[connection]
                self._step_in_after(connection, *subscriber.position)
                return

    def _read_log_for(self, connection: Connection, behind: Lagging) -> None:
        items = behind.read()
        self.loop.call_soon(lambda: self._has_read_for(connection, items))

    def _has_read_for(self, connection: Connection, items: list[bytes]) -> None:
        behind = self._behind.get(connection)
        if behind is None or connection.ending is not None:
            return
        behind.busy = False
        if items:
            connection.give(b"".join(items), len(items))
        if items or not behind.subscriber.state.reads_log:  # else the next tick tries again
            self._serve(connection)

    def last_for(self, connection: Connection) -> tuple[bytes, int]:
        """See :class:`Group`."""
        behind = self._behind.get(connection)
        if behind is None or behind.busy or behind.subscriber.state.reads_log:
            return b"", 0
        items = behind.subscriber.poll() or ()
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
