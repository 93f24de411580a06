"""Subscription: what a broker gives to those who subscribe."""

from __future__ import annotations

import inspect
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from ..errors import BrokerError, CloseReason, StreamClosed
from ..event import Event
from ..locks import Waiters
from .message import Message, body_of
from .policy import Policy
from .subscriber import Subscriber

if TYPE_CHECKING:
    from ..detached.loop import Connection, Handover, Record
    from .broker import Broker

__all__ = ["Place", "Subscription"]

# Events of one read of the log.
_PAGE = 100
# Seconds until a log that could not be read is tried again, doubled from the one to the other: for thousands that wait
# at the same time.
_RETRY = (0.2, 3.0)
# Ends that are no error for whoever iterates.
_QUIET = (CloseReason.DONE, CloseReason.CANCELLED, CloseReason.SHUTDOWN)


class Place(NamedTuple):
    """Which events a client is to get: plain values, which with a :class:`Handover` are all that it takes."""

    channels: tuple[str, ...]
    patterns: tuple[str, ...]
    policy: Policy
    key: str | None
    epoch: str
    cursor: int
    behind: bool
    """Whether what came after the cursor may lie in the log alone."""
    first: bytes
    """Events that come before all others."""
    first_events: int


class Subscription:
    """What :meth:`Broker.subscribe` gives: the source of a stream, or events to iterate over.

    ::

        return EventStreamResponse(broker.subscribe("room:1", last_event_id=get_last_event_id(request)))

        with broker.subscribe("orders") as subscription:
            for event in subscription: ...

    As the source of a stream it needs no thread of its own: messages are put where the server's thread takes them. It
    may be read by one thread at a time, and ended from any. One that is not referred to any more ends by itself.
    """

    #: Its events have ids, by which a client resumes. For the stream alone.
    resumable = True
    #: A client that comes back is not told what failed. For the stream alone.
    error: BaseException | None = None

    def __init__(
        self,
        broker: Broker,
        channels: tuple[str, ...],
        patterns: tuple[str, ...],
        policy: Policy,
        key: str | None = None,
    ) -> None:
        self._broker = broker
        self._dispatcher = broker.dispatcher
        #: The channels, and patterns of channels, that it gets.
        self.channels, self.patterns = channels, patterns
        self._key = key
        self._subscriber = Subscriber(broker, policy, channels, patterns)
        self._waiters = Waiters()
        self._subscriber.on_ready = self._waiters.wake
        self._first: list[bytes] = []
        self._unread: list[Event] = []  # of what was taken, the last first
        self._given = 0
        self._detached: Connection | None = None

    def allowed_by(self, authorize: Callable[[str], object]) -> bool:
        """Ask a check for each channel and each pattern.

        :param authorize: called with a channel or a pattern; true if it is allowed.
        :return: whether all of them are.
        :raises TypeError: the check is asynchronous: its answer is a coroutine, which is always true.
        """
        for name in self.channels + self.patterns:
            answer = authorize(name)
            if isinstance(answer, Awaitable):
                if inspect.iscoroutine(answer):
                    answer.close()
                raise TypeError(f"authorize is called synchronously and gave a {type(answer).__name__}: use def")
            if not answer:
                return False
        return True

    def send_first(self, items: Iterable[Any], dumps: Callable[[Any], str | bytes] | None = None) -> None:
        """Have a stream begin with these events, before what is replayed and live: with the state, say, that those
        change. As they are made after subscribing, nothing falls between. Not for those who read events themselves.

        :param items: the events, as for :meth:`Broker.publish`.
        :param dumps: the JSON encoder.
        :raises EventError: one has an id, or no data, or can't be written.
        :raises TypeError: one is nothing that can be sent.
        """
        self._first += [body_of(item, None, dumps) for item in items]

    def hand_over(self, handover: Handover, record: Record) -> Connection:
        """Have the process's loop serve the client. For the stream alone.

        :raises BrokerError: the log can't be reached or used. Then nothing has happened.
        :raises OSError: there are no more descriptors.
        :raises RuntimeError: there can't be another thread, or the subscription has ended.
        """
        subscriber = self._subscriber
        if subscriber.reason is not None:
            raise RuntimeError(f"the subscription has ended: {subscriber.reason}")
        place = Place(
            self.channels, self.patterns, subscriber.policy, self._key, *subscriber.position,
            subscriber.state.reads_log, b"".join(self._first), len(self._first),
        )  # fmt: skip
        connection = self._detached = self._broker.audiences.hand_over(handover, place, record, subscriber)
        reason = subscriber.pass_on(connection)
        if reason is CloseReason.SHUTDOWN:
            connection.stop(reason)  # it was ended meanwhile, and is to be told when to come back
        elif reason is not None:
            connection.cancel(reason)
        self._dispatcher.detach(subscriber)
        return connection

    @property
    def last_event_id(self) -> str:
        """The id of the last event that was given out, or where it begins; ``""`` if that is not known yet."""
        epoch, seq = self._subscriber.position
        return f"{epoch}-{seq}" if epoch else ""

    @property
    def reason(self) -> CloseReason | None:
        """Why the subscription ended, ``None`` while it has not."""
        return self._subscriber.reason if self._detached is None else self._detached.reason

    @property
    def closed(self) -> bool:
        """Whether the subscription has ended."""
        return self.reason is not None

    @property
    def events(self) -> int:
        """How many events were given out so far."""
        return self._given if self._detached is None else self._detached.stats.events

    @property
    def pending(self) -> tuple[int, int]:
        """How many events and bytes wait to be taken. Those that are in the log alone don't count."""
        return self._subscriber.pending

    def take(self, timeout: float | None = None) -> list[bytes] | None:
        """Wait for events, as bytes of an event stream.

        :param timeout: seconds; ``None``: without end.
        :return: all events that there are, or a page of the log; an empty list if the time is over; ``None`` if the
            subscription has ended, see ``reason``.
        """
        if self._first and not self.closed:
            first, self._first = self._first, []
            return first
        deadline = None if timeout is None else time.monotonic() + timeout
        pause = _RETRY[0]
        while True:
            remaining = None if deadline is None else max(0.0, deadline - time.monotonic())
            try:
                items = self._next()
            except BrokerError:
                if remaining == 0:
                    return []
                self._subscriber.await_ready()
                self._waiters.wait(lambda: self.closed, pause if remaining is None else min(pause, remaining))
                pause = min(2 * pause, _RETRY[1])
                continue
            if items or items is None:
                return items
            if not self._subscriber.is_ready:
                if remaining == 0:
                    return []
                self._subscriber.await_ready()
                self._waiters.wait(self._is_ready, remaining)

    def _is_ready(self) -> bool:
        return self._subscriber.is_ready

    def _next(self) -> list[bytes] | None:
        """As :meth:`take`, without waiting; empty if nothing is there, or only the next call finds out.

        :raises BrokerError: the log can't be read now.
        """
        subscriber = self._subscriber
        if self._dispatcher is not self._broker.dispatcher:
            subscriber.abandon()  # it is the parent's, in a forked child: nobody feeds it
            return None
        items = subscriber.poll()
        if items is None:
            self._dispatcher.detach(subscriber)
            return None
        if not items and subscriber.state.reads_log:
            items = subscriber.read(_PAGE)
        self._given += sum(isinstance(item, Message) for item in items)
        return items

    def get(self, timeout: float | None = None) -> Event | None:
        """Wait for an event.

        :param timeout: seconds; ``None``: without end.
        :return: the event, ``None`` if none came.
        :raises StreamClosed: the subscription has ended.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        while not self._unread:
            items = self.take(None if deadline is None else max(0.0, deadline - time.monotonic()))
            if items is None:
                raise StreamClosed(self._subscriber.reason or CloseReason.CANCELLED)
            self._unread = [item.event for item in reversed(items) if isinstance(item, Message)]
            if not self._unread and deadline is not None and time.monotonic() >= deadline:
                return None
        return self._unread.pop()

    def __iter__(self) -> Iterator[Event]:
        """The events, until the subscription is closed.

        :return: an iterator over them.
        :raises StreamClosed: it ended for another reason: it could not keep up, or a right was taken back.
        """
        while True:
            try:
                event = self.get()
            except StreamClosed as closed:
                if closed.reason in _QUIET:
                    return
                raise
            if event is not None:
                yield event

    def cancel(self, reason: CloseReason | str = CloseReason.CANCELLED) -> None:
        """End at once: nothing that waits is given out. From any thread, any number of times.

        :param reason: why.
        """
        if self._detached is not None:
            self._detached.cancel(reason)
        self._subscriber.close(CloseReason(reason), discard=True)
        self._dispatcher.detach(self._subscriber)

    def stop(self, reason: CloseReason | str, last: bytes = b"") -> None:
        """End after what waits. From any thread.

        :param reason: why.
        :param last: bytes to be given after what waits.
        """
        if self._detached is not None:
            self._detached.stop(reason, last)
            return  # the subscriber would have it cut off
        self._subscriber.close(CloseReason(reason), last=last)
        self._dispatcher.detach(self._subscriber)

    def close(self) -> None:
        """End. Does nothing if it has ended."""
        self.cancel()

    def __enter__(self) -> Subscription:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def __del__(self) -> None:
        # Of a view that failed after it had subscribed, say. This may run anywhere, so it takes no lock.
        subscriber: Subscriber | None = self.__dict__.get("_subscriber")
        if subscriber is not None:
            subscriber.abandon()
            self._dispatcher.detach(subscriber)
