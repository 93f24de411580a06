"""Broadcast groups: detached clients that get the same bytes.

A group encodes a message once, and sends it once to each client that is in sync. A client that is not in sync is served
by a :class:`Subscriber` of its own until it has caught up. A group's :class:`Source` fills it, and makes these
subscribers.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from ..errors import CloseReason
from ..wire.chunked import to_chunk
from ..wire.encoder import KEEP_ALIVE
from .accounting import NOTHING, Totals
from .connection import Connection
from .group import check_transition
from .pieces import split
from .source import Numbered, Position, Source, Subscriber
from .state import OVER, RUNNING, State

if TYPE_CHECKING:
    from .connections import Connections

__all__ = ["BroadcastGroup"]

Splice = Callable[[Sequence[bytes]], Callable[[Any], bytes]]
# The states of clients to which the group itself gives messages.
_FED = RUNNING - {State.LAGGING}
# About how many bytes are read from the log for a client at a time.
_READ = 256 * 1024


class BroadcastGroup:
    """See the module. All but :meth:`pending_of` on the reactor's thread.

    :param keep_alive: seconds of silence after which a client is sent a keep-alive.
    :param source: the source of its messages.
    :param splice: if each client gets bytes of its own: a function that prepares items, and returns one that joins them
        for a client's envelope. The registrations of the clients have the envelopes.
    :param keep_alive_data: the bytes of a keep-alive.
    """

    def __init__(
        self,
        connections: Connections,
        keep_alive: float | None,
        source: Source,
        splice: Splice | None = None,
        keep_alive_data: bytes = KEEP_ALIVE,
    ) -> None:
        self._connections = connections
        self._keep_alive, self._keep_alive_data = keep_alive, keep_alive_data
        self._source, self._splice = source, splice
        #: The last message that was sent to all clients in sync.
        self.position = Position("", -1)
        #: The time of the last send to all clients in sync.
        self.last_write = time.monotonic()
        #: The figures of the sends to all clients in sync. A send to some of them is counted by each of these.
        self.totals = NOTHING
        # These depend on the clients' states, see move().
        self._in_sync: dict[int, Connection] = {}
        self._raw: set[int] = set()  # those in sync without the chunked coding (HTTP/1.0): behind nginx's defaults
        self._others: dict[int, Connection] = {}  # all that are registered and not in sync
        self._ahead: dict[Connection, Position] = {}
        self._lagging: dict[Connection, Subscriber] = {}
        self._reading: set[Connection] = set()  # the lagging ones for which the log is being read
        self._due = 0.0  # no client in sync needs a keep-alive before

    def __len__(self) -> int:
        return len(self._in_sync) + len(self._others)

    def members(self) -> Iterator[Connection]:
        """Iterate over the clients that get messages, now or after they have caught up."""
        yield from self._in_sync.values()
        yield from (each for each in self._others.values() if each.state in RUNNING)

    def pending_of(self, connection: Connection) -> tuple[int, int]:
        """Count what the client's own subscriber has queued. Any thread.

        :return: events and bytes.
        """
        return (0, 0) if (subscriber := self._lagging.get(connection)) is None else subscriber.pending

    # States.

    def move(self, connection: Connection, state: State, held: Position | Subscriber | None = None) -> None:
        """Change the state of a client, and the sets that depend on it. Only this method does that.

        :param held: with ``AHEAD`` the client's position, with ``LAGGING`` its subscriber.
        :raises RuntimeError: this state can't follow the one that the client is in.
        """
        before, fd = connection.state, connection.fd
        check_transition(before, state)
        if before is State.IN_SYNC:
            del self._in_sync[fd]
            self._raw.discard(fd)
            connection.sent.leave(self.totals, self.last_write)
        elif before is State.AHEAD:
            del self._ahead[connection]
        elif before is State.LAGGING:
            self._reading.discard(connection)
            self._lagging.pop(connection).close(CloseReason.CANCELLED)
        if state in (State.IN_SYNC, State.CLOSED):
            self._others.pop(fd, None)
        else:
            self._others[fd] = connection
        connection.state = state
        if state is State.IN_SYNC:
            connection.sent.join(self.totals)
            self._in_sync[fd] = connection
            if not connection.chunked:
                self._raw.add(fd)
            if self._keep_alive is not None:
                self._due = min(self._due, connection.sent.last + self._keep_alive)
        elif isinstance(held, tuple):
            self._ahead[connection] = held
        elif held is not None:
            self._lagging[connection] = held

    def place(self, connection: Connection, position: Position) -> None:
        """Choose the state of a client that has all messages up to a position. Does nothing if it is ending or
        closed."""
        if connection.state in OVER:
            return
        if position.epoch != self.position.epoch or position.seq > self.position.seq:
            self.move(connection, State.AHEAD, position)
        elif connection.unsent is not None:
            self.move(connection, State.DRAINING)
        else:
            self.move(connection, State.IN_SYNC)

    def lag(self, connection: Connection, position: Position, *, from_log: bool = True) -> None:
        """Serve a client by a subscriber of its own, from a position on; ``from_log``: see :class:`Source`."""
        subscriber = self._source.subscriber_for(connection, position, from_log=from_log)
        self.move(connection, State.LAGGING, subscriber)
        if connection.unsent is None:
            self._serve(connection)

    def freeze(self, connection: Connection) -> tuple[Position, bool] | None:
        """Send a client nothing from now on, as another process is about to serve it.

        :return: its position, and whether it lags; ``None``: not now, as the log is being read for it, or it is ending.
        """
        subscriber, position = self._lagging.get(connection), self._ahead.get(connection, self.position)
        if subscriber is not None:
            held = None if connection in self._reading else subscriber.freeze()
            if held is None:
                return None
            position, notes = held
            if notes:
                connection.give(self._joined(connection, notes), len(notes))
        if connection.state not in RUNNING:
            return None
        self.move(connection, State.FROZEN)
        return position, subscriber is not None

    def read_log(self, connections: Iterable[Connection]) -> None:
        """Make clients read the log, each from its last message, as the group will not send all messages."""
        for connection in connections:
            subscriber = self._lagging.get(connection)
            if subscriber is None:
                self.lag(connection, self._ahead.get(connection, self.position))
            else:
                subscriber.missed()
                if connection.unsent is None:
                    self._serve(connection)

    def restart(self, position: Position) -> None:
        """Set the position after the log was started anew: the next message has this position, and reports the
        restart."""
        for subscriber in self._lagging.values():
            subscriber.restarted(*position)
        self.position = position._replace(seq=position.seq - 1)
        for connection, ahead in self._ahead.items():
            # A client with a position in the new log got that message when the log was read for it.
            self._ahead[connection] = ahead if ahead.epoch == position.epoch else Position(position.epoch, -1)

    # Sending.

    def send(self, parts: Iterable[tuple[Sequence[Numbered], Collection[int]]], last: int) -> None:
        """Send messages to the clients in sync, and queue them for the others.

        :param parts: messages in the order of the log, and the descriptors of the clients that get exactly these. No
            descriptor is in two parts.
        :param last: the number of the last message in the log, whether or not a client gets it.
        """
        before, self.position = self.position, self.position._replace(seq=last)
        ahead, new = dict(self._ahead), dict[Connection, Sequence[Numbered]]()
        for messages, fds in parts:
            if self._others:
                others = [other for fd in fds if (other := self._others.get(fd)) is not None]
                fds = [fd for fd in fds if fd in self._in_sync]
                new.update((each, messages) for each in others if each in ahead)
                self._queue([each for each in others if each not in ahead], messages, before)
            self._send_pieces(messages, fds)
        for connection, position in ahead.items():
            if connection.state is State.AHEAD:
                self._follow(connection, position, new.get(connection, ()))

    def _follow(self, connection: Connection, position: Position, messages: Sequence[Numbered]) -> None:
        """Send a client that is ahead the messages after its position."""
        if position.epoch == self.position.epoch and (own := [each for each in messages if each.seq > position.seq]):
            connection.give(self._joined(connection, own), len(own))
        self.place(connection, position)

    def _joined(self, connection: Connection, items: Sequence[bytes]) -> bytes:
        """Join messages and other bytes for one client."""
        return b"".join(items) if self._splice is None else self._splice(items)(connection.registration.envelope)

    def fed(self, fds: Iterable[int], seq: int) -> list[Connection]:
        """Find the clients to which the group itself gives a message: not those that lag, or are ahead of it.

        :param fds: the descriptors of clients that get the message.
        :param seq: the message's number.
        :return: the clients.
        """
        found = [each for fd in fds if (each := self._in_sync.get(fd) or self._others.get(fd)) is not None]
        return [
            each for each in found
            if each.state in _FED and not (each.state is State.AHEAD and self._ahead[each].seq >= seq)
        ]  # fmt: skip

    def finish(self, connections: Iterable[Connection]) -> None:
        """End the streams of clients that have everything. A lagging one is ended by its subscriber."""
        for connection in connections:
            if connection.state in _FED:
                connection.finish(CloseReason.DONE)

    def _send_pieces(self, messages: Sequence[Numbered], fds: Collection[int]) -> None:
        """Send messages to clients in sync, divided so that each send fits."""
        while fds:
            piece, messages = split(messages)
            if self._splice is None:
                self.give(fds, b"".join(piece), len(piece))
            else:
                self._give_each(fds, self._splice(piece), len(piece))
            if not messages:
                return
            short = [self._others[fd] for fd in fds if fd in self._others]
            self._queue(short, messages, self.position._replace(seq=piece[-1].seq))
            fds = [fd for fd in fds if fd in self._in_sync]

    def _queue(self, connections: Iterable[Connection], messages: Sequence[Numbered], position: Position) -> None:
        """Queue messages for clients that are lagging, or draining with all messages up to a position."""
        for connection in connections:
            if connection.state is State.DRAINING:
                self.lag(connection, position, from_log=False)
            subscriber = self._lagging.get(connection)
            if subscriber is None:
                continue  # it is ending
            if connection in self._reading:
                subscriber.progressed()  # the client waits for this process, and is not slow
            if (reason := subscriber.offer(messages)) is not None and reason is not CloseReason.DONE:
                connection.abort(reason)

    def give(self, fds: Collection[int], data: bytes, events: int, keep_alives: int = 0) -> None:
        """Send the same bytes to some of the clients in sync. Those that do not accept all of them are draining then.

        :param fds: their descriptors.
        :param events: how many events ``data`` holds.
        :param keep_alives: how many keep-alives.
        """
        now = time.monotonic()
        if len(fds) == len(self._in_sync):
            # Counted once for all, so that ten thousand clients take no longer here than one.
            totals = self.totals
            self.totals = Totals(totals.events + events, totals.bytes + len(data), totals.keep_alives + keep_alives)
            self.last_write = now
        else:
            for fd in fds:
                self._in_sync[fd].sent.add(events, len(data), keep_alives, now)
        if len(self._raw) in (0, len(self._in_sync)):
            self._send(data if self._raw else to_chunk(data), list(fds))
            return
        chunked, raw = [fd for fd in fds if fd not in self._raw], [fd for fd in fds if fd in self._raw]
        for wire, those in ((to_chunk(data), chunked), (data, raw)):
            if those:
                self._send(wire, those)

    def _give_each(self, fds: Iterable[int], join: Callable[[Any], bytes], events: int) -> None:
        """As :meth:`give`, with bytes of its own for each client."""
        now, send = time.monotonic(), self._connections.send
        for fd in list(fds):
            connection = self._in_sync[fd]
            data = join(connection.registration.envelope)
            connection.sent.add(events, len(data), 0, now)
            wire = to_chunk(data) if connection.chunked else data
            if (sent := send(fd, wire, len(wire))) != len(wire):
                self.move(connection, State.DRAINING)
                connection.keep(wire, sent)

    def _send(self, wire: bytes, fds: Iterable[int]) -> None:
        for fd, sent in self._connections.send_to_all(fds, wire):
            connection = self._in_sync[fd]
            self.move(connection, State.DRAINING)
            connection.keep(wire, sent)

    # Clients after a send, and their subscribers.

    def drained(self, connection: Connection) -> None:
        """See :class:`ssesync.detached.group.Group`."""
        if connection.state is State.LAGGING:
            self._serve(connection)
        elif connection.state is State.DRAINING:
            self.place(connection, self.position)

    def progressed(self, connection: Connection) -> None:
        """See :class:`ssesync.detached.group.Group`."""
        if (subscriber := self._lagging.get(connection)) is not None:
            subscriber.progressed()

    def take_rest(self, connection: Connection) -> tuple[bytes, int]:
        """Take the queued messages of a client that is about to end: none if earlier ones are in the log.

        :return: the messages, joined, and their number.
        """
        subscriber = self._lagging.get(connection)
        if subscriber is None or connection in self._reading:
            return b"", 0
        polled = subscriber.poll()
        if isinstance(polled, (CloseReason, Position)):
            return b"", 0
        return self._joined(connection, polled), len(polled)

    def left(self, connection: Connection) -> None:
        """See :class:`ssesync.detached.group.Group`."""
        self._source.left(connection)

    def _serve(self, connection: Connection) -> None:
        """Send a client its subscriber's messages; when there are no more, the client has caught up."""
        subscriber = self._lagging.get(connection)
        while subscriber is not None and connection.state is State.LAGGING:
            if connection.unsent is not None or connection in self._reading:
                return
            polled = subscriber.poll()
            if polled is CloseReason.DONE:
                connection.finish(polled)
            elif isinstance(polled, CloseReason):
                connection.abort(polled)
            elif isinstance(polled, Position):
                self._source.caught_up(connection, subscriber)
                self.place(connection, polled)
            elif polled:
                connection.give(self._joined(connection, polled), len(polled))
            else:
                self._reading.add(connection)
                read = functools.partial(subscriber.read, _READ)
                self._connections.read(read, functools.partial(self._has_read, connection, subscriber))

    def _has_read(self, connection: Connection, subscriber: Subscriber, items: list[bytes] | None) -> None:
        if self._lagging.get(connection) is not subscriber:
            return  # it is ending, or closed
        self._reading.discard(connection)
        if items:
            connection.give(self._joined(connection, items), len(items))
        if items is not None:  # else the next tick tries again
            self._serve(connection)

    # Time.

    def tick(self, now: float) -> None:
        """Twice a second: cut off clients that have stalled, send keep-alives, serve clients whose log could not be
        read."""
        # A client in sync has no unsent bytes.
        for connection in list(self._others.values()):
            if connection.unsent is not None and connection.unsent.has_stalled(now):
                connection.abort(CloseReason.STALLED)
        for connection in list(self._lagging):
            self._serve(connection)
        self._source.tick()
        if self._keep_alive is not None:
            self._keep_alive_in_sync(now, self._keep_alive)
            self._keep_alive_others(now, self._keep_alive)

    def _keep_alive_in_sync(self, now: float, keep_alive: float) -> None:
        if now < self._due:
            return
        limit = now - keep_alive
        if self.last_write > limit:
            self._due = self.last_write + keep_alive
            return
        last = {fd: connection.sent.last for fd, connection in self._in_sync.items()}
        silent = [fd for fd, written in last.items() if written <= limit]
        # The next keep-alive is due for one of the other clients, or for one of these.
        self._due = min([now, *(written for written in last.values() if written > limit)]) + keep_alive
        if silent:
            self.give(silent, self._keep_alive_data, 0, 1)

    def _keep_alive_others(self, now: float, keep_alive: float) -> None:
        for connection in (*self._ahead, *self._lagging):
            # Not with unsent bytes: a client that takes those needs no keep-alive.
            if connection.sent.last + keep_alive <= now and connection.unsent is None:
                connection.give(self._keep_alive_data, 0, 1)
