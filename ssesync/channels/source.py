"""A subscription as the source of a stream, or of a thread that iterates over it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, NamedTuple, Protocol

from ..detached.holder import Holder
from ..detached.sending import PIECE
from ..errors import CloseReason
from ..server.source import END, Detachable, End, Pending, Pulled, Refusal
from .completion import Completion
from .envelope import Envelope, splice
from .log import Position, ProcessBroker
from .policy import Policy
from .queue import ALL
from .reentry import Wakeup
from .subscriber import Subscriber

if TYPE_CHECKING:
    from ..detached.connection import Connection, Handover, Record
    from .dispatcher import Closable

__all__ = ["Place", "SubscriptionSource"]


class Place(NamedTuple):
    """Which events a client gets, and from where: plain values. With a :class:`Handover` they suffice to serve it."""

    channels: tuple[str, ...]
    patterns: tuple[str, ...]
    policy: Policy
    key: str | None
    epoch: str
    cursor: int
    reads_log: bool
    """Whether events after the cursor may be in the log alone."""
    until: tuple[str, ...]
    """The types of events after which the client's stream ends."""
    envelope: Envelope | None
    closed: Mapping[str, int]
    """The closed channels at the cursor, if the next events are not read from the log."""
    is_complete: bool
    """Whether nothing comes after ``first``."""
    first: bytes
    """Events to be sent before all others."""
    first_events: int


class Groups(Protocol):
    """The broadcast groups of a broker."""

    @property
    def holder(self) -> Holder | None:
        """What may move the clients to another process."""
        ...

    def hand_over(self, handover: Handover, place: Place, record: Record, replaces: Closable) -> Connection:
        """Hand a client over to the reactor, which serves it from now on. Any thread.

        :param handover: the client.
        :param place: which events it gets.
        :param record: the account of the stream.
        :param replaces: the subscriber that has served the client, which the caller removes next.
        :return: the client's connection.
        :raises BrokerError: the log can't be reached or used. Then nothing has changed.
        :raises OSError: there are no more descriptors.
        :raises RuntimeError: no more threads can be started.
        """
        ...


class SubscriptionBroker(ProcessBroker, Protocol):
    """A broker, as a subscription uses it."""

    @property
    def broadcast_groups(self) -> Groups:
        """The detached clients of this process."""
        ...


class SubscriptionSource(Detachable):
    """The source of one subscription: it polls the queue, reads the log, and leaves the dispatcher at the end.

    The client can resume by id, so it is not sent the subscription's error. A subscription without references ends by
    itself.

    :param broker: the broker.
    :param channels: the names of its channels.
    :param patterns: patterns of more names.
    :param policy: how much may wait, and the action when the queue is full.
    :param key: see :meth:`Broker.revoke`.
    :param until: the types of events after which it ends.
    :param envelope: the client's, if it has one.
    """

    def __init__(
        self,
        broker: SubscriptionBroker,
        channels: tuple[str, ...],
        patterns: tuple[str, ...],
        policy: Policy,
        key: str | None,
        until: tuple[str, ...],
        envelope: Envelope | None,
    ) -> None:
        self._broker = broker
        self._dispatcher = broker.dispatcher
        self._channels, self._patterns = channels, patterns
        self._key, self._envelope = key, envelope
        #: The types of events after which it ends.
        self.until = until
        completion = Completion(channels, patterns, until)
        #: The queue, and the position in the log.
        self.subscriber = Subscriber(broker, policy, (channels, patterns), completion=completion)
        #: Events to be sent before all others.
        self.first: list[bytes] = []
        # What was read from the log before the consumer asked, and the position before it.
        self._ahead: list[bytes] = []
        self._position: Position | None = None
        self._connection: Connection | None = None  # once the reactor serves the client
        self._wakeup = Wakeup()

    @property
    def on_ready(self) -> Callable[[], object] | None:
        """See :class:`Source`."""
        return self.subscriber.on_ready

    @on_ready.setter
    def on_ready(self, call: Callable[[], object] | None) -> None:
        self.subscriber.on_ready = call

    @property
    def resumable(self) -> bool:
        """See :class:`Source`: each event has an ID."""
        return True

    @property
    def position(self) -> Position:
        """After the last event that was given."""
        return self._position or self.subscriber.position

    def read_ahead(self) -> None:
        """Read the first page of the log, which shows whether the client has everything. The next :meth:`pull` gives
        it.

        :raises Exception: an error other than the broker's. The subscription has ended.
        """
        position, taken = self.subscriber.position, self.subscriber.take(PIECE, waits=False)
        if isinstance(taken, list):
            self._position, self._ahead = position, taken
        elif taken is END and self.subscriber.reason is CloseReason.DONE:
            self.complete()

    def complete(self) -> None:
        """End, as the client has everything: it is answered 204, and does not reconnect."""
        self.answer = Refusal("204 No Content", [])
        self.subscriber.close(CloseReason.DONE)
        self._dispatcher.remove(self.subscriber)

    def open(self, wait: float) -> Refusal | None:
        """See :class:`Source`."""
        return self.answer

    def pull(self, most: int) -> Pulled:
        """See :class:`Source`."""
        taken = self._take(most, waits=True)
        return self._joined(taken) if isinstance(taken, list) else taken

    def _joined(self, items: list[bytes]) -> bytes:
        return b"".join(items) if self._envelope is None else splice(items)(self._envelope)

    def take(self, timeout: float | None) -> list[bytes] | None:
        """See :meth:`Subscription.take`."""
        deadline = None if timeout is None else time.monotonic() + timeout
        self.on_ready = self._wakeup.set  # pyright: ignore[reportIncompatibleVariableOverride]
        while True:
            self._wakeup.clear()  # before the take: a call of on_ready after it sets this again
            remaining = None if deadline is None else max(0.0, deadline - time.monotonic())
            taken = self._take(ALL, waits=remaining != 0)
            if isinstance(taken, End):
                return None
            if isinstance(taken, list):
                return taken
            if remaining == 0:
                return []
            waits = [seconds for seconds in (remaining, taken.again) if seconds is not None]
            self._wakeup.wait(min(waits, default=None))

    def _take(self, most: int, *, waits: bool) -> list[bytes] | Pending | End:
        """As :meth:`pull`, with each event by itself."""
        subscriber = self.subscriber
        if self._dispatcher is not self._broker.dispatcher:
            subscriber.close(CloseReason.CANCELLED)  # in a forked child: it is the parent's, and gets no messages
            return END
        if (self.first or self._ahead) and subscriber.reason in (None, CloseReason.DONE):
            return self._take_first()
        taken = subscriber.take(most, waits=waits)
        if taken is END:
            self._dispatcher.remove(subscriber)
        return taken

    def _take_first(self) -> list[bytes]:
        """Take what comes before all that the subscriber gives."""
        first, self.first, self._ahead, self._position = self.first + self._ahead, [], [], None
        return first

    def detach(self, handover: Handover, record: Record) -> Connection:
        """See :class:`Detachable`.

        :raises BrokerError: the log can't be reached or used.
        :raises OSError: there are no more descriptors.
        :raises RuntimeError: no more threads can be started, or the subscription has ended.
        """
        subscriber = self.subscriber
        if subscriber.pending[0] or (subscriber.state.reads_log and not self._ahead):
            # So the client gets all that there is, or a page of it, with the head. Otherwise it would be a lagging one,
            # on which two more threads have to work.
            taken = subscriber.take(PIECE, waits=False)
            self._ahead += taken if isinstance(taken, list) else []
        is_complete = subscriber.reason is CloseReason.DONE
        if subscriber.reason is not None and not is_complete:
            raise RuntimeError(f"the subscription has ended: {subscriber.reason}")
        policy, epoch, seq, reads_log = subscriber.place
        first = self.first + self._ahead
        place = Place(
            self._channels, self._patterns, policy, self._key, epoch, seq, reads_log, self.until, self._envelope,
            subscriber.closed, is_complete, self._joined(first), len(first),
        )  # fmt: skip
        connection = self._connection = self._broker.broadcast_groups.hand_over(handover, place, record, subscriber)
        self._take_first()  # the connection has it
        reason = subscriber.pass_on(connection)
        if reason is CloseReason.SHUTDOWN:
            connection.stop(reason)  # the subscriber was ended meanwhile; the client is sent a time to reconnect
        elif reason is not None and reason is not CloseReason.DONE:
            connection.cancel(reason)
        self._dispatcher.remove(subscriber)
        return connection

    def reserve(self, key: str, limit: int) -> bool:
        """See :class:`Detachable`. A subscription with ``coalesce`` is not moved."""
        holder = self._broker.broadcast_groups.holder
        return holder is None or self.subscriber.place[0].coalesce is not None or holder.reserve(key, limit)

    @property
    def reason(self) -> CloseReason | None:
        """See :class:`Source`."""
        return self.subscriber.reason if self._connection is None else self._connection.reason

    @property
    def pending(self) -> tuple[int, int]:
        """See :class:`Source`. Events that are in the log alone don't count."""
        events, size = self.subscriber.pending
        return events + len(self._ahead), size + sum(map(len, self._ahead))

    @property
    def events(self) -> int:
        """See :class:`Source`."""
        return self.subscriber.events if self._connection is None else self._connection.stats.events

    def cancel(self, reason: CloseReason | str, *, dropped: bool = False) -> None:
        """See :class:`Source`."""
        if self._connection is not None:
            self._connection.cancel(reason)
        dropped = dropped or bool(self.first or self._ahead)
        self.first, self._ahead = [], []
        self.subscriber.close(CloseReason(reason), discard=True, unsent=dropped)
        self._dispatcher.remove(self.subscriber)

    def stop(self, reason: CloseReason | str, last: bytes = b"") -> None:
        """See :class:`Source`."""
        if self._connection is not None:
            self._connection.stop(reason, last)
            return  # ending the subscriber as well would cancel the connection
        self.subscriber.close(CloseReason(reason), last=last)
        self._dispatcher.remove(self.subscriber)

    def close(self) -> None:
        """See :class:`Source`."""
        if self._connection is None:
            self.cancel(CloseReason.CANCELLED)

    def __del__(self) -> None:
        # For example after a view that subscribed and then failed. This may run anywhere, so it takes no lock.
        subscriber: Subscriber | None = self.__dict__.get("subscriber")
        if subscriber is not None:
            self._dispatcher.remove(subscriber)
            if self._connection is not None:
                self._connection.registration.is_held = False
