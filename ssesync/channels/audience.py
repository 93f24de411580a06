"""Audiences: the detached clients of a process that have the same channels, and one subscription for all of them.

What the subscription gets is made into bytes once, and is one send for each client that keeps step. One that does not,
since it comes with a last event ID or takes less than there is, has a subscription of its own until it has caught up:
with the same inbox, policy and readings of the log as a served one. So it is the audience that the hub feeds, and
the audience that feeds those.

All but :meth:`Audiences.hand_over` happens on the loop's thread. Logs are read on its helpers'.
"""

from __future__ import annotations

import functools
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from ..errors import BrokerClosed, CloseReason
from ..server.loop import Connection, Group, Handover, Loop, Record, loop
from ..wire.encoder import KEEP_ALIVE
from .frame import Frame, parse_id
from .hub import Listed
from .policy import Policy
from .subscription import Place, Subscription

if TYPE_CHECKING:
    from .broker import Broker

__all__ = ["Audience", "Audiences"]

logger = logging.getLogger("ssesync")

# What may wait for an audience: for the loop's thread, that is, which is slow only where there are many clients. Beyond
# it the log is read. Only a loop that has not looked for so many seconds gives all of them up.
_EVENTS, _BYTES, _PATIENCE = 10_000, 16 * 1024 * 1024, 60.0
# Bytes of a send, about: half of what the kernel keeps for a client (see takeover.py), so that one fits in.
_SEND = 32768
# Bytes that are read from the log for a client at a time, about, and events of one reading at most.
_READ, _PAGE = 256 * 1024, 1000
# Seconds for which an audience may send before others get their turn.
_TURN = 0.02


class Audiences:
    """Those of a broker in this process."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._lock = threading.Lock()
        self._audiences: dict[Any, Audience] = {}

    def hand_over(self, handover: Handover, place: Place, record: Record, instead_of: Listed) -> Connection:
        """Have a client served by the loop from now on, and no more by who is named. Any thread.

        :raises BrokerError: the log can't be reached or used. Then nothing has happened.
        :raises OSError: there are no more descriptors.
        :raises RuntimeError: there can't be another thread.
        """
        current = loop()
        key = (place.channels, place.patterns, place.policy.likeness, handover.settings.keep_alive)
        with self._lock:
            audience = self._audiences.get(key)
            if audience is None:
                audience = self._audiences[key] = Audience(self._broker, place, handover.settings.keep_alive, current)
                audience.leave = functools.partial(self._leave, key, audience)
            audience.members += 1
        connection = Connection(current, handover, audience, record)
        hub = self._broker.hub
        fed = hub.enlist(connection, audience.inbox, place.channels, place.patterns, place.key, instead_of)
        try:
            audience.begin(fed)
            if self._broker._closed:
                raise BrokerClosed("the broker is closed")  # perhaps before it knew of this one
        except BaseException:
            hub.detach(connection)
            if audience.leave():
                current.call_soon(audience.end)
            raise
        record.began(connection)
        current.call_soon(lambda: audience.welcome(connection, handover.head, place))
        return connection

    def _leave(self, key: Any, audience: Audience) -> bool:
        with self._lock:
            audience.members -= 1
            if audience.members:
                return False
            del self._audiences[key]
            return True


class Behind(NamedTuple):
    """A client that does not keep step."""

    subscription: Subscription
    busy: list[bool]
    """Whether a helper reads the log for it."""


class Audience(Group):
    """See the module."""

    def __init__(self, broker: Broker, place: Place, keep_alive: float | None, current: Loop) -> None:
        super().__init__(current, keep_alive)
        self._broker = broker
        self._policy = place.policy
        self._channels, self._patterns = place.channels, place.patterns
        policy = Policy(
            max_pending_events=_EVENTS,
            max_pending_bytes=_BYTES,
            patience=_PATIENCE,
            reset_event=place.policy.reset_event,
        )
        self._subscription = Subscription(broker, place.channels, place.patterns, policy)
        #: What the hub feeds.
        self.inbox = self._subscription.inbox
        self.inbox.on_wake = self._wake
        self._revoked: deque[Connection] = deque()
        self.inbox.on_revoked = self._revoked.append
        self._beginning = threading.Lock()
        self._begun = False
        self._woken = self._reading = False
        self._epoch = ""
        self._position = -1  # the last that all in step were given
        self._frames: deque[Frame] = deque()
        self._fresh: dict[Connection, tuple[str, int]] = {}  # in step after this place, which lies before the audience
        self._late: dict[Connection, None] = {}  # have still to take the last send, and missed nothing since
        self._behind: dict[Connection, Behind] = {}
        #: How many clients there are, counted under the lock of who made this.
        self.members = 0
        #: To be called for each of them that is no more: whether it was the last.
        self.leave: Callable[[], bool] = lambda: False

    # Any thread.

    def begin(self, fed: bool) -> None:
        """Set out at the log's end, the first time; others wait for that. If not ``fed``, it has gaps."""
        with self._beginning:
            if not self._begun:
                epoch, head = self._broker._head()
                self._epoch, self._position = epoch, head
                self.inbox.start(epoch, head, behind=False)
                self._begun = True
                self._wake()
            elif not fed:
                self.inbox.missed()

    def _wake(self) -> None:
        if not self._woken:
            self._woken = True
            self.loop.call_soon(self._flush)

    def pending_of(self, connection: Connection) -> tuple[int, int]:
        """See :class:`Group`."""
        behind = self._behind.get(connection)
        return (0, 0) if behind is None else behind.subscription.pending

    # Who comes and goes.

    def welcome(self, connection: Connection, head: bytes, place: Place) -> None:
        """Take a client in. What is published from now on it gets; what was before is in the log."""
        self.loop.take_in(connection, head)
        if connection.closed or connection.ending is not None:
            return
        if place.first:
            connection.give(place.first, place.first_events)
            if connection.closed:
                return
        if place.behind or place.epoch != self._epoch or place.cursor < self._position:
            self._fall_behind(connection, place.epoch, place.cursor, log=True)
            if not connection.waits:
                self._serve(connection)
        elif connection.waits:
            self._fall_behind(connection, place.epoch, place.cursor)
        else:
            self._step_in_after(connection, place.epoch, place.cursor)

    def left(self, connection: Connection) -> None:
        """See :class:`Group`."""
        self._fresh.pop(connection, None)
        self._late.pop(connection, None)
        behind = self._behind.pop(connection, None)
        if behind is not None:
            behind.subscription.cancel()
        self._broker.hub.detach(connection)
        if self.leave():
            self.end()

    def end(self) -> None:
        """Be no more: the last has left."""
        self.loop.forget(self)
        self._subscription.cancel()

    # What comes.

    def _flush(self) -> None:
        """Send what there is to all, for as long as others may wait for their turn."""
        self._woken = False
        if not self._begun:
            return
        deadline = time.monotonic() + _TURN
        while self._fill():
            self._send_batch()
            if time.monotonic() >= deadline:
                self._wake()  # there may be more
                return

    def _fill(self) -> bool:
        """Take what the hub has brought; whether there is something to be sent."""
        if self._frames or self._reading:
            return bool(self._frames)
        if self.inbox.look() is not None:
            # It is not their fault: if the log can't tell, they are told that.
            self.inbox.blameless = True
            self._reading = True
            self.loop.read(self._read_log)
            return False
        items = self.inbox.take(0)
        if items is None:
            reason = self.inbox.reason or CloseReason.CANCELLED
            for connection in list(self.all()):
                self.loop.end(connection, reason)
            return False
        self._frames.extend(item for item in items if isinstance(item, Frame))
        return bool(self._frames)

    def _read_log(self) -> None:
        items = _read(self._subscription)
        self.loop.call_soon(lambda: self._has_read(items or ()))

    def _has_read(self, items: Iterable[bytes]) -> None:
        self._reading = False
        self._frames.extend(item for item in items if isinstance(item, Frame))
        if self._frames or not self.inbox.behind or self.inbox.reason is not None:
            self._wake()  # else the next tick tries again

    def _send_batch(self) -> None:
        while self._revoked:
            # Now: what is sent may have been published when that was done, and to end them is asked for on the way.
            self.loop.end(self._revoked.popleft(), CloseReason.REVOKED)
        first = self._frames[0]
        if not first.startswith(b"id: %s-" % self._epoch.encode()):
            self._begin_anew(first)
        frames = [self._frames.popleft()]
        size = len(frames[0])
        while self._frames and size + len(self._frames[0]) <= _SEND:
            frames.append(self._frames.popleft())
            size += len(frames[-1])
        late, self._late = self._late, {}
        for connection in late:
            self._fall_behind(connection, self._epoch, self._position)
        self._position = frames[-1].seq
        for connection, behind in list(self._behind.items()):
            inbox = behind.subscription.inbox
            if behind.busy[0]:
                inbox.still_reads()  # it waits for us
            if not inbox.offer_all(frames):
                self.loop.end(connection, inbox.reason or CloseReason.OVERFLOW)
        self.give_all(b"".join(frames), len(frames))
        fresh, self._fresh = self._fresh, {}
        for connection, (epoch, cursor) in fresh.items():
            new = [frame for frame in frames if frame.seq > cursor] if epoch == self._epoch else []
            if connection.ending is None and new:
                connection.give(b"".join(new), len(new))
            self._step_in_after(connection, epoch, cursor)

    def _begin_anew(self, first: Frame) -> None:
        """The log was begun anew: the first frame says so to those in step."""
        epoch, position = parse_id(first[4 : first.index(b"\n")].decode()) or ("", -1)
        for behind in self._behind.values():
            behind.subscription.inbox.lost("restarted", epoch, position)
        self._epoch, self._position = epoch, position - 1
        for connection, place in self._fresh.items():
            # Who has a place in the new log already was told of it when that was read for it.
            self._fresh[connection] = place if place[0] == epoch else (epoch, -1)

    # Who keeps step, and who does not.

    def all(self) -> Iterator[Connection]:
        """All clients."""
        yield from self._chunked.values()
        yield from self._raw.values()
        yield from (*self._fresh, *self._late, *self._behind)

    def send_keep_alive(self) -> None:
        """See :class:`Group`."""
        super().send_keep_alive()
        for connection in (*self._fresh, *self._behind):
            # Not into the middle of what waits, and who takes that needs none.
            if not connection.waits and connection.ending is None:
                connection.give(KEEP_ALIVE, 0, 1)

    def _step_in_after(self, connection: Connection, epoch: str, cursor: int) -> None:
        if connection.closed or connection.ending is not None:
            return
        if epoch != self._epoch or cursor > self._position:
            self._fresh[connection] = epoch, cursor
        elif connection.waits:
            self._late[connection] = None
        else:
            self.step_in(connection)

    def fell_behind(self, connection: Connection) -> None:
        """See :class:`Group`."""
        self._late[connection] = None

    def _fall_behind(self, connection: Connection, epoch: str, cursor: int, *, log: bool = False) -> None:
        subscription = Subscription(self._broker, self._channels, self._patterns, self._policy)
        subscription.inbox.start(epoch, cursor, behind=log)
        self._behind[connection] = Behind(subscription, [False])

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
        while not (connection.closed or connection.waits or behind.busy[0] or connection.ending):
            if inbox.look() is not None:
                behind.busy[0] = True
                self.loop.read(lambda: self._read_log_for(connection, behind.subscription))
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

    def _read_log_for(self, connection: Connection, subscription: Subscription) -> None:
        items = _read(subscription)
        # As much as may be at a time: by rounds of small pages, thousands who come back at once while much is published
        # would never get there.
        while items and subscription.inbox.behind and (size := sum(map(len, items))) < _READ:
            subscription.page = max(1, min(_PAGE, (_READ - size) * len(items) // size))
            more = _read(subscription)
            if not more:
                break
            items += more
        self.loop.call_soon(lambda: self._has_read_for(connection, items))

    def _has_read_for(self, connection: Connection, items: list[bytes] | None) -> None:
        behind = self._behind.get(connection)
        if behind is None or connection.ending is not None:
            return
        behind.busy[0] = False
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
        if behind is None or behind.busy[0] or behind.subscription.inbox.behind:
            return b"", 0
        items = behind.subscription.inbox.take(0) or ()
        return b"".join(items), len(items)

    def tick(self, now: float) -> None:
        """See :class:`Group`."""
        if self.inbox.behind and not self._reading:
            self._wake()
        for connection in list(self._behind):
            if connection in self._behind:
                self._serve(connection)


def _read(subscription: Subscription) -> list[bytes] | None:
    """What the log has for a subscription. On a reader's thread."""
    try:
        return subscription.take(0)
    except Exception:
        logger.exception("the log can't be read for a detached stream, which ends")
        subscription.cancel(CloseReason.ERROR)
        return None
