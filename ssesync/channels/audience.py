"""Audiences: the detached clients of a process that are served alike, and what they have subscribed to.

All clients of a broker with the same policy and keep-alive time are one audience, whatever their channels. It is one
sink of the dispatcher, which offers it each event once, and an index tells which clients have the event's channel. What
they get is made into bytes once for all that have the same channels among those of a batch, and is one send for each
client in step. One that is not has a queue of its own, see ``lagging.py``: it is the audience that the dispatcher
feeds, and the audience that feeds those.

An audience for each set of channels, as it was before, took 6.3 kB for each client with a channel of its own, and an
event for all took an offer, a batch and a call to send for each.

All but :meth:`Audiences.hand_over` and what the dispatcher calls happens on the loop's thread. Logs are read on its
helpers'.
"""

from __future__ import annotations

import functools
import time
from collections import deque
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from ..detached.loop import Connection, Handover, Loop, Record, loop
from ..errors import BrokerClosed, CloseReason
from ..locks import make_lock
from .batch import next_batch, split
from .dispatcher import Listed, Member
from .index import Index
from .lagging import LaggingGroup, read_log
from .message import Message, parse_id
from .policy import Policy
from .source import Place
from .subscriber import Subscriber

if TYPE_CHECKING:
    from .broker import Broker

__all__ = ["Audience", "Audiences"]

# What may wait for an audience: for the loop's thread, that is, which is slow only where there are many clients. It is
# for the channels of all of them: an event for each of some ten thousand users fits in. Beyond it the log is read. Only
# a loop that has not looked for so many seconds gives all of them up.
_EVENTS, _BYTES, _PATIENCE = 50_000, 16 * 1024 * 1024, 60.0
# Events of one read of the log.
_PAGE = 100
# Seconds for which an audience may send before others get their turn.
_TURN = 0.02


class Audiences:
    """Those of a broker in this process."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._lock = make_lock("channels.audience")
        self._audiences: dict[Any, Audience] = {}

    def hand_over(self, handover: Handover, place: Place, record: Record, instead_of: Listed) -> Connection:
        """Have a client served by the loop from now on, and no more by who is named. Any thread.

        :raises BrokerError: the log can't be reached or used. Then nothing has happened.
        :raises OSError: there are no more descriptors.
        :raises RuntimeError: there can't be another thread.
        """
        current = loop()
        key = (place.policy.likeness, handover.settings.keep_alive)
        with self._lock:
            audience = self._audiences.get(key)
            if audience is None:
                audience = Audience(self._broker, place.policy, handover.settings.keep_alive, current)
                self._audiences[key] = audience
                audience.leave = functools.partial(self._leave, key, audience)
            audience.members += 1
        connection = Connection(current, handover, audience, record)
        dispatcher = self._broker.dispatcher
        member = Member(place.channels, place.patterns, place.key, audience)
        epoch, position = dispatcher.enlist(connection, member, instead_of)
        if place.epoch != epoch or place.cursor < position:
            place = place._replace(behind=True)  # the audience may not have been offered what came in between
        try:
            audience.begin()
            if self._broker._closed:
                raise BrokerClosed("the broker is closed")  # perhaps before it knew of this one
        except BaseException:
            dispatcher.detach(connection)
            if audience.leave():
                current.call_soon(audience.end)
            raise
        record.began(connection)
        current.call_soon(lambda: audience.welcome(connection, member, handover.head, place))
        return connection

    def _leave(self, key: Any, audience: Audience) -> bool:
        with self._lock:
            audience.members -= 1
            if audience.members:
                return False
            del self._audiences[key]
            return True


class Audience(LaggingGroup):
    """See the module."""

    def __init__(self, broker: Broker, policy: Policy, keep_alive: float | None, current: Loop) -> None:
        super().__init__(broker, policy, keep_alive, current)
        own = Policy(
            max_pending_events=_EVENTS,
            max_pending_bytes=_BYTES,
            patience=_PATIENCE,
            reset_event=policy.reset_event,
        )
        self.subscriber = Subscriber(broker, own, shared=True)
        self.subscriber.on_ready = self._wake
        self._revoked: deque[Listed] = deque()
        self._gaps: deque[Collection[str] | None] = deque()  # channels of which not everything was offered
        self._beginning = make_lock("channels.group")
        self._begun = False
        self._woken = self._reading = False
        self._index: Index[int] = Index()  # the descriptors of all clients that were taken in
        self._size = 0  # how many these are
        self._complete_after = -1  # up to here, channels that nobody in here had may have been left out
        self._frames: deque[Message] = deque()
        #: How many clients there are, counted under the lock of who made this.
        self.members = 0
        #: To be called for each of them that is no more: whether it was the last.
        self.leave: Callable[[], bool] = lambda: False

    # Any thread.

    def begin(self) -> None:
        """Set out at the log's end, the first time; others wait for that."""
        with self._beginning:
            if not self._begun:
                epoch, head = self._broker._head()
                self._epoch, self._position = epoch, head
                self.subscriber.start(epoch, head, from_log=False)
                self._begun = True
                self._wake()

    def _wake(self) -> None:
        if not self._woken:
            self._woken = True
            self.loop.call_soon(self._flush)

    # What the dispatcher calls, on the thread that publishes or listens.

    def offer(self, messages: Sequence[Message]) -> bool:
        """See :class:`ssesync.channels.dispatcher.Sink`."""
        return self.subscriber.offer(messages)

    def restarted(self, epoch: str, position: int) -> None:
        """See :class:`ssesync.channels.dispatcher.Sink`."""
        self.subscriber.restarted(epoch, position)

    def missed(self, channels: Collection[str] | None) -> None:
        """See :class:`ssesync.channels.dispatcher.Sink`."""
        self._gaps.append(channels)
        self._wake()

    def revoked(self, who: Listed) -> None:
        """See :class:`ssesync.channels.dispatcher.SharedSink`."""
        self._revoked.append(who)

    # Who comes and goes.

    def welcome(self, connection: Connection, member: Member, head: bytes, place: Place) -> None:
        """Take a client in. What is published from now on it gets; what was before is in the log."""
        self.loop.take_in(connection, head)
        if connection.closed or connection.ending is not None:
            return
        connection.member = member
        self._index.add(connection.fd, member.channels, member.patterns)
        self._size += 1
        if place.first:
            connection.give(place.first, place.first_events)
            if connection.closed:
                return
        # What was read from the log, or is being read, was read without this client's channels.
        incomplete = (
            self._reading or self.subscriber.state.reads_log or place.cursor < max(self._position, self._complete_after)
        )
        if place.behind or place.epoch != self._epoch or incomplete:
            self._fall_behind(connection, place.epoch, place.cursor, log=True)
            if not connection.waits:
                self._serve(connection)
        elif connection.waits:
            self._fall_behind(connection, place.epoch, place.cursor)
        else:
            self._step_in_after(connection, place.epoch, place.cursor)

    def left(self, connection: Connection) -> None:
        """See :class:`Group`."""
        member, connection.member = connection.member, None
        if member is not None:
            self._index.remove(connection.fd, member.channels, member.patterns)
            self._size -= 1
        super().left(connection)
        self._broker.dispatcher.detach(connection)
        if self.leave():
            self.end()

    def end(self) -> None:
        """Be no more: the last has left."""
        self.loop.forget(self)
        self.subscriber.close(CloseReason.CANCELLED, discard=True)

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
        """Take what the dispatcher has brought; whether there is something to be sent."""
        if self._frames or self._reading:
            return bool(self._frames)
        items = self.subscriber.poll()
        if not items and self.subscriber.state.reads_log:
            self._read_on()
            return False
        if items is None:
            reason = self.subscriber.reason or CloseReason.CANCELLED
            for connection in list(self.all()):
                self.loop.end(connection, reason)
            return False
        self._frames.extend(item for item in items if isinstance(item, Message))
        # Behind the taking: of a gap before one of these messages, this is to know before that one is sent.
        while self._gaps:
            self._close_gap(self._gaps.popleft())
        return bool(self._frames)

    def _read_on(self) -> None:
        """There was no room for all that came, so it is in the log."""
        if self._index.is_same_for_all(self._size):
            self._reading = True
            self.subscriber.channels = tuple(self._index.names)
            self.subscriber.patterns = tuple(self._index.patterns)
            self.loop.read(self._read_log)
            return
        # Each by itself: of thousands of channels together, each page would cost a look at all of them.
        self._complete_after = self._broker.dispatcher.position
        self.subscriber.start(*self.subscriber.position, from_log=False)
        self._leave_to_log(list(self.all()))
        self._wake()

    def _close_gap(self, channels: Collection[str] | None) -> None:
        """Not all events of these channels were offered, after the last that was sent."""
        if self._index.is_same_for_all(self._size):
            self._frames.clear()
            self.subscriber.start(self._epoch, self._position, from_log=True)
            self._wake()
            return
        if channels is None:
            self._leave_to_log(list(self.all()))
            return
        fds = set().union(*map(self._having, channels))
        self._leave_to_log([connection for connection in self.all() if connection.fd in fds])

    def _read_log(self) -> None:
        items = read_log(self.subscriber, _PAGE)
        self.loop.call_soon(lambda: self._has_read(items))

    def _has_read(self, items: Iterable[bytes]) -> None:
        self._reading = False
        self._complete_after = self.subscriber.position.seq
        self._frames.extend(item for item in items if isinstance(item, Message))
        if self._frames or not self.subscriber.state.reads_log or self.subscriber.reason is not None:
            self._wake()  # else the next tick tries again

    def _having(self, channel: str) -> Collection[int]:
        # A reset is of no channel, and for all.
        return self._index.having(channel) if channel else [connection.fd for connection in self.all()]

    def _send_batch(self) -> None:
        while self._revoked:
            # Now: what is sent may have been published when that was done, and to end them is asked for on the way.
            who = self._revoked.popleft()
            assert isinstance(who, Connection)
            self.loop.end(who, CloseReason.REVOKED)
        first = self._frames[0]
        if not first.startswith(b"id: %s-" % self._epoch.encode()):
            self._begin_anew(first)
        messages, parts = next_batch(self._frames, self._having)
        before, self._position = self._position, messages[-1].seq
        fresh, self._fresh = self._fresh, {}
        out = len(self._in_step) < self._size
        others = {each.fd: each for each in (*fresh, *self._late, *self._behind)} if out else {}
        new: dict[Connection, list[Message]] = {}
        for part, fds in parts:
            if out:
                those = [others[fd] for fd in fds if fd in others]
                new.update((each, part) for each in those if each in fresh)
                self._offer([each for each in those if each not in fresh], part, before)
            self._give(part, [fd for fd in fds if fd in self._in_step] if out else fds)
        for connection, (epoch, cursor) in fresh.items():
            own = (
                [message for message in new.get(connection, ()) if message.seq > cursor] if epoch == self._epoch else []
            )
            if connection.ending is None and own:
                connection.give(b"".join(own), len(own))
            self._step_in_after(connection, epoch, cursor)

    def _give(self, messages: list[Message], fds: Collection[int]) -> None:
        """Send messages to clients in step, in so many sends that each of them fits in."""
        while fds:
            piece, messages = split(messages)
            self.give(fds, b"".join(piece), len(piece))
            if not messages:
                return
            short = {fd for fd in fds if fd not in self._in_step}
            self._offer([each for each in self._late if each.fd in short], messages, piece[-1].seq)
            fds = [fd for fd in fds if fd not in short]

    def _begin_anew(self, first: Message) -> None:
        """The log was begun anew: the first message says so to those in step."""
        epoch, position = parse_id(first[4 : first.index(b"\n")].decode()) or ("", -1)
        for behind in self._behind.values():
            behind.subscriber.restarted(epoch, position)
        self._epoch, self._position = epoch, position - 1
        self._complete_after = -1
        for connection, place in self._fresh.items():
            # Who has a place in the new log already was told of it when that was read for it.
            self._fresh[connection] = place if place[0] == epoch else (epoch, -1)

    def tick(self, now: float) -> None:
        """See :class:`Group`."""
        super().tick(now)
        if self.subscriber.state.reads_log and not self._reading:
            self._wake()
