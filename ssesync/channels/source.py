"""A subscription as the source of a stream, or of a thread that iterates over it."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple, Protocol

from ..detached.sending import PIECE
from ..errors import CloseReason
from ..server.source import END, Detachable, End, Pending, Pulled
from .log import ProcessBroker
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
    first: bytes
    """Events to be sent before all others."""
    first_events: int


class Groups(Protocol):
    """The broadcast groups of a broker."""

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
    """

    def __init__(
        self,
        broker: SubscriptionBroker,
        channels: tuple[str, ...],
        patterns: tuple[str, ...],
        policy: Policy,
        key: str | None,
    ) -> None:
        self._broker = broker
        self._dispatcher = broker.dispatcher
        self._channels, self._patterns = channels, patterns
        self._key = key
        #: The queue, and the position in the log.
        self.subscriber = Subscriber(broker, policy, (channels, patterns))
        #: Events to be sent before all others.
        self.first: list[bytes] = []
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

    def pull(self, most: int) -> Pulled:
        """See :class:`Source`."""
        taken = self._take(most, waits=True)
        return b"".join(taken) if isinstance(taken, list) else taken

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
        if self.first and subscriber.reason is None:
            first, self.first = self.first, []
            return first
        taken = subscriber.take(most, waits=waits)
        if taken is END:
            self._dispatcher.remove(subscriber)
        return taken

    def detach(self, handover: Handover, record: Record) -> Connection:
        """See :class:`Detachable`.

        :raises BrokerError: the log can't be reached or used.
        :raises OSError: there are no more descriptors.
        :raises RuntimeError: no more threads can be started, or the subscription has ended.
        """
        subscriber = self.subscriber
        if subscriber.place[-1]:
            # The server's thread may wait for the log. So it sends the missed events with the head, if they are one
            # page. Otherwise the client would be a lagging one, on which two more threads have to work.
            taken = subscriber.take(PIECE, waits=False)
            self.first += taken if isinstance(taken, list) else []
        if subscriber.reason is not None:
            raise RuntimeError(f"the subscription has ended: {subscriber.reason}")
        policy, epoch, seq, reads_log = subscriber.place
        place = Place(
            self._channels, self._patterns, policy, self._key, epoch, seq, reads_log,
            b"".join(self.first), len(self.first),
        )  # fmt: skip
        connection = self._connection = self._broker.broadcast_groups.hand_over(handover, place, record, subscriber)
        reason = subscriber.pass_on(connection)
        if reason is CloseReason.SHUTDOWN:
            connection.stop(reason)  # the subscriber was ended meanwhile; the client is sent a time to reconnect
        elif reason is not None:
            connection.cancel(reason)
        self._dispatcher.remove(subscriber)
        return connection

    @property
    def reason(self) -> CloseReason | None:
        """See :class:`Source`."""
        return self.subscriber.reason if self._connection is None else self._connection.reason

    @property
    def pending(self) -> tuple[int, int]:
        """See :class:`Source`. Events that are in the log alone don't count."""
        return self.subscriber.pending

    @property
    def events(self) -> int:
        """See :class:`Source`."""
        return self.subscriber.events if self._connection is None else self._connection.stats.events

    def cancel(self, reason: CloseReason | str, *, dropped: bool = False) -> None:
        """See :class:`Source`. Subscriptions have no end of their own."""
        if self._connection is not None:
            self._connection.cancel(reason)
        self.subscriber.close(CloseReason(reason), discard=True)
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
