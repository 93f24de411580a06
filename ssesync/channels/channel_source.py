"""The source of one broadcast group: the messages of its clients' channels, from the dispatcher or the log.

Everything runs on the reactor's thread, except the methods that the dispatcher calls. Logs are read on other threads.
"""

from __future__ import annotations

import functools
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence

from ..detached import source as detached_source
from ..detached.broadcast import BroadcastGroup
from ..detached.connection import Connection
from ..detached.connections import Connections
from ..detached.source import Position
from ..detached.transfer import FrozenConnection, is_plain
from ..errors import CloseReason
from .batch import next_batch
from .client_index import ClientIndex
from .completion import Completion
from .dispatcher import Closable, Registration
from .index import having
from .log import Names, ProcessBroker
from .message import Message, parse_id
from .policy import Policy
from .source import Place
from .starting import SharedStart
from .subscriber import Subscriber
from .transfer import Frozen, FrozenClient, Stay, Wanted

__all__ = ["ChannelSource"]

# The limits of a group's queue. The reactor's thread empties it, and is slow only with many clients. It has the
# messages of all their channels: an event for each of some ten thousand users fits in. Beyond that the log is read. All
# clients are ended only if the reactor has not polled for that many seconds.
_EVENTS, _BYTES, _STALL_TIMEOUT = 50_000, 16 * 1024 * 1024, 60.0
# Seconds for which a group may send before other groups get their turn.
_TURN = 0.02


class ChannelSource:
    """The source of one broadcast group, and the dispatcher's sink for it.

    :param group_of: makes the group of a source.
    :param lock: the lock of :class:`BroadcastGroups`.
    :param release: called for each client that has left; returns whether it was the last.
    """

    def __init__(
        self,
        broker: ProcessBroker,
        policy: Policy,
        group_of: Callable[[ChannelSource], BroadcastGroup],
        connections: Connections,
        lock: threading.Lock,
        release: Callable[[], bool],
    ) -> None:
        self._broker = broker
        self._policy = policy
        self._connections = connections
        self.release = release
        #: How many clients there are, counted under the lock.
        self.clients = 0
        self.group = group_of(self)
        own = Policy(
            max_pending_events=_EVENTS,
            max_pending_bytes=_BYTES,
            patience=_STALL_TIMEOUT,
            reset_event=policy.reset_event,
        )
        self.subscriber = Subscriber(broker, own, shared=True, on_ready=self._wake)
        self._revoked: deque[Closable] = deque()
        self._gaps: deque[Collection[str] | None] = deque()  # channels of which not everything was offered
        self._starting = SharedStart(lock, self._start, lambda: None)
        self._woken = self._reading = False
        self._index = ClientIndex()  # all clients that were admitted
        self._complete_after = -1  # up to here, messages of channels that no client had may have been left out
        self._messages: deque[Message] = deque()

    # Any thread.

    def start(self) -> None:
        """Start at the log's end. The first thread does it; others wait for it."""
        if not self._starting:
            self._starting.ensure()

    def _start(self) -> None:
        position = Position(*(parse_id(self._broker.position()) or ("", -1)))
        self.subscriber.start(*position, from_log=False)
        self.group.position = position
        self._wake()

    def _wake(self) -> None:
        if not self._woken:
            self._woken = True
            self._connections.call_soon(self._flush)

    # Called by the dispatcher, on the thread that publishes or listens.

    def offer(self, messages: Sequence[Message]) -> CloseReason | None:
        """See :class:`ssesync.channels.dispatcher.Sink`."""
        return self.subscriber.offer(messages)

    def restarted(self, epoch: str, position: int) -> None:
        """See :class:`ssesync.channels.dispatcher.Sink`."""
        self.subscriber.restarted(epoch, position)

    def missed(self, channels: Collection[str] | None) -> None:
        """See :class:`ssesync.channels.dispatcher.Sink`."""
        self._gaps.append(channels)
        self._wake()

    def revoked(self, client: Closable) -> None:
        """See :class:`ssesync.channels.dispatcher.SharedSink`."""
        self._revoked.append(client)

    # Clients: admitted, lagging, gone.

    def admit(self, connection: Connection, head: bytes, place: Place) -> None:
        """Serve a client. It gets later events from the group, and earlier ones from the log."""
        self._connections.register(connection, head)
        registration: Registration = connection.registration
        if connection.reason is not None:
            return
        if place.is_complete:
            connection.finish(CloseReason.DONE)
            return
        self._index.add_client(connection.fd, registration)
        self._serve_from(connection, Position(place.epoch, place.cursor), place.closed, reads_log=place.reads_log)

    def _serve_from(
        self, connection: Connection, position: Position, closed: Mapping[str, int], *, reads_log: bool
    ) -> None:
        """Serve a client from a position on.

        :param closed: the closed channels at the position.
        :param reads_log: whether later messages may be in the log alone.
        """
        # A read of the log that is over or in progress did not include this client's channels.
        is_incomplete = self._reading or self.subscriber.state.reads_log
        is_incomplete = is_incomplete or position.seq < max(self.group.position.seq, self._complete_after)
        if reads_log or position.epoch != self.group.position.epoch or is_incomplete:
            self.group.lag(connection, position)
        else:
            self._index.set_closed(connection.registration.channels, closed)
            self.group.place(connection, position)

    # Clients of other processes.

    def adopt(self, connection: Connection, frozen: FrozenConnection, place: Place) -> None:
        """Serve a client that comes from another process."""
        self.admit(connection, frozen.unsent, place)
        if not connection.closed:
            self._connections.limit_lifetime(connection, frozen.lifetime)
        if connection.unsent is not None:
            connection.unsent.since -= frozen.stalled

    def movable_members(self, wanted: Wanted | None = None) -> Iterator[Connection]:
        """Find the clients that may be frozen, now or soon.

        :param wanted: which of them; ``None``: any.
        """
        for connection in list(self.group.members()):  # freeze() changes them
            if self.why_it_stays(connection) is None and (wanted is None or wanted(connection)):
                yield connection

    def may_move(self, connection: Connection, *, later: bool = False) -> bool:
        """Whether another process may serve a client. Any thread.

        :param connection: the client's.
        :param later: whether a client counts whose request is not over yet: its view may still refer to its stream.
        :return: whether it may.
        """
        return self.why_it_stays(connection) in ((None, Stay.HELD) if later else (None,))

    def why_it_stays(self, connection: Connection) -> Stay | None:
        """Why a client can't be frozen. Any thread.

        :return: the reason; ``None``: it can be, now or soon.
        """
        if not self._broker.is_shared:
            return Stay.MEMORY
        if self._policy.coalesce is not None:
            return Stay.COALESCE
        if not is_plain(connection.settings, orderly=connection.orderly):
            return Stay.ERROR_EVENT
        if connection.record.is_bound:
            return Stay.ON_CLOSE
        if connection.registration.is_held or not connection.record.is_movable:
            return Stay.HELD
        return None

    def freeze(self, connection: Connection) -> Frozen | None:
        """Freeze a client.

        :return: the client; ``None`` if that is not possible now.
        """
        held = self.group.freeze(connection)
        if held is None:
            return None
        position, reads_log = held
        registration: Registration = connection.registration
        closed = {channel: seq for channel, seq in self._index.closed.items() if channel in registration.channels}
        place = Place(
            registration.channels, registration.patterns, self._policy, registration.key, *position, reads_log,
            registration.until, registration.envelope, closed, False, b"", 0,
        )  # fmt: skip
        client = FrozenClient(connection.freeze(), place)
        return Frozen(connection, client, functools.partial(self._thaw, connection, closed))

    def _thaw(self, connection: Connection, closed: Mapping[str, int], position: Position, reads_log: bool) -> None:
        self._serve_from(connection, position, closed, reads_log=reads_log)

    def subscriber_for(self, connection: Connection, position: Position, *, from_log: bool) -> Subscriber:
        """See :class:`ssesync.detached.source.Source`."""
        registration: Registration = connection.registration
        names = registration.channels, registration.patterns
        closed = {
            channel: seq
            for channel, seq in self._index.closed.items()
            if seq <= position.seq and not from_log and channel in registration.channels
        }
        completion = Completion(*names, registration.until, closed)
        subscriber = Subscriber(self._broker, self._policy, names, completion=completion)
        subscriber.start(*position, from_log=from_log)
        return subscriber

    def caught_up(self, connection: Connection, subscriber: detached_source.Subscriber) -> None:
        """See :class:`ssesync.detached.source.Source`."""
        assert isinstance(subscriber, Subscriber)
        self._index.set_closed(connection.registration.channels, subscriber.closed)

    def left(self, connection: Connection) -> None:
        """See :class:`ssesync.detached.source.Source`."""
        registration: Registration = connection.registration
        self._index.remove_client(connection.fd, registration)
        self._broker.dispatcher.remove(connection)
        if self.release():
            self.end()

    def end(self) -> None:
        """End the group, after the last client has left."""
        self._connections.discard(self.group)
        self.subscriber.close(CloseReason.CANCELLED)

    # Messages.

    def _flush(self) -> None:
        """Send the waiting messages, for as long as other groups may wait for their turn."""
        self._woken = False
        if not self.group.position.epoch:
            return  # it is being started
        deadline = time.monotonic() + _TURN
        while self._fill():
            self._send_batch()
            if time.monotonic() >= deadline:
                self._wake()  # there may be more
                return

    def _fill(self) -> bool:
        """Take the messages that the dispatcher has offered. The result: whether any wait to be sent."""
        if self._messages or self._reading:
            return bool(self._messages)
        polled = self.subscriber.poll()
        if isinstance(polled, CloseReason):
            for connection in list(self.group.members()):
                connection.abort(polled)
            return False
        if not polled:
            self._read_on()
            return False
        self._messages.extend(item for item in polled if isinstance(item, Message))
        # After poll(), so that a gap before one of these messages is known before that message is sent.
        while self._gaps:
            self._close_gap(self._gaps.popleft())
        return bool(self._messages)

    def _read_on(self) -> None:
        """Read the log: the queue was full, and has not taken all messages."""
        if self._index.is_same_for_all(len(self.group)):
            self._reading = True
            names: Names = (tuple(self._index.names), tuple(self._index.patterns))
            self._connections.read(lambda: self.subscriber.read(names=names), self._has_read)
            return
        # Each client by itself: a page of thousands of channels together would cost a query of each of them.
        self._complete_after = self._broker.dispatcher.position
        self.subscriber.start(*self.subscriber.position, from_log=False)
        self.group.read_log(list(self.group.members()))
        self._wake()

    def _close_gap(self, channels: Collection[str] | None) -> None:
        """Read the log for these channels: events after the last one that was sent were not offered."""
        if self._index.is_same_for_all(len(self.group)):
            self._messages.clear()
            self.subscriber.start(*self.group.position, from_log=True)
            self._wake()
            return
        members = list(self.group.members())
        if channels is not None:
            fds = set().union(*map(self._fds_of, channels))
            members = [connection for connection in members if connection.fd in fds]
        self.group.read_log(members)

    def _has_read(self, items: Iterable[bytes] | None) -> None:
        self._reading = False
        self._complete_after = self.subscriber.position.seq
        if items is not None:  # else the next tick tries again
            self._messages.extend(item for item in items if isinstance(item, Message))
            if not self.subscriber.state.reads_log:
                self._index.set_closed(list(self._index.names), self.subscriber.closed)
            if not self._messages:
                self._finish(self._index.closed)
            self._wake()

    def tick(self) -> None:
        """See :class:`ssesync.detached.source.Source`."""
        if self.subscriber.state.reads_log and not self._reading:
            self._wake()

    def _fds_of(self, channel: str) -> Collection[int]:
        if not channel:
            return [connection.fd for connection in self.group.members()]  # a reset is for all
        return self._index.having(channel)

    def _send_batch(self) -> None:
        while self._revoked:
            # Before the next send: its events may be newer than the revocation, whose request to end them is queued.
            client = self._revoked.popleft()
            assert isinstance(client, Connection)
            client.abort(CloseReason.REVOKED)
        first = self._messages[0]
        if not first.startswith(b"id: %s-" % self.group.position.epoch.encode()):
            # The log was started anew: the first message reports that to the clients in sync.
            epoch, seq = parse_id(first[4 : first.index(b"\n")].decode()) or ("", -1)
            self.group.restart(Position(epoch, seq))
            self._index.closed.clear()
            self._complete_after = -1
        index = self._index
        messages, parts = next_batch(self._messages, self._fds_of, index.ends_clients if index.until else None)
        last = messages[-1]
        # Before it is sent: a client that lags afterwards has a subscriber of its own, which ends it.
        ended = self.group.fed(index.ended_by(last), last.seq) if index.until else ()
        self.group.send(parts, last.seq)
        self.group.finish(ended)
        self._finish(index.note(messages))

    def _finish(self, channels: Iterable[str]) -> None:
        """End the streams of the clients that have everything, among those of closed channels."""
        seq = self.group.position.seq
        for channel in list(channels):
            clients = self.group.fed(list(having(self._index.names, channel)), seq)
            self.group.finish([each for each in clients if self._index.is_complete(each.registration, seq)])
