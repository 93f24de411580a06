"""Subscription: one subscriber's view of any number of channels, from where it left off."""

from __future__ import annotations

import inspect
import logging
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from ..errors import BrokerClosed, BrokerDamaged, BrokerError, CloseReason, StreamClosed
from ..event import Event
from ..text import escape
from .message import Message, body_of, parse_id
from .policy import Policy
from .subscriber import Inbox

if TYPE_CHECKING:
    from ..detached.loop import Connection, Handover, Record
    from .broker import Broker

__all__ = ["Place", "Subscription"]

logger = logging.getLogger("ssesync")

# Events of a reading of the log.
_PAGE = 100
# Seconds until a log that could not be read is tried again: for thousands that wait at the same time.
_TRY_AGAIN = (0.2, 3.0)
# Ends that whoever asked for them need not be told of.
_QUIET = (CloseReason.DONE, CloseReason.CANCELLED, CloseReason.SHUTDOWN)


class Place(NamedTuple):
    """Which events a client is to get: plain values, which with a :class:`Handover` say all of it."""

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
    may be read by one thread at a time, and ended from any. One that is let go of ends by itself.
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
        self._hub = broker.dispatcher
        #: The channels, and patterns of channels, that it gets.
        self.channels, self.patterns = channels, patterns
        #: What the dispatcher feeds.
        self.inbox = Inbox(policy, broker.count)
        #: Events of a reading of the log.
        self.page = _PAGE
        self._failing = False
        self._events: list[Event] = []
        self._first: list[bytes] = []
        self._key = key
        self._detached: Connection | None = None

    def allowed_by(self, authorize: Callable[[str], object]) -> bool:
        """Whether a check that is asked for each channel and each pattern is true for all of them.

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

        :raises EventError: one has an id, or no data, or can't be written.
        :raises TypeError: one is nothing that can be sent.
        """
        self._first += [body_of(item, None, dumps) for item in items]

    def resume(self, last_event_id: str) -> None:
        """Begin after an id, from the log. For the broker alone."""
        place = parse_id(last_event_id)
        epoch, seq = place or ("", 0)
        self.inbox.start(epoch, seq, behind=True)

    def hand_over(self, handover: Handover, record: Record) -> Connection:
        """Have the process's loop serve the client. For the stream alone.

        :raises BrokerError: the log can't be reached or used. Then nothing has happened.
        :raises OSError: there are no more descriptors.
        :raises RuntimeError: there can't be another thread, or the subscription has ended.
        """
        inbox = self.inbox
        if inbox.reason is not None:
            raise RuntimeError(f"the subscription has ended: {inbox.reason}")
        place = Place(
            self.channels, self.patterns, inbox.policy, self._key, inbox.epoch, inbox.cursor,
            inbox.behind, b"".join(self._first), len(self._first),
        )  # fmt: skip
        connection = self._detached = self._broker.audiences.hand_over(handover, place, record, inbox)
        reason = inbox.pass_on(connection)
        if reason is CloseReason.SHUTDOWN:
            connection.stop(reason)  # it was ended meanwhile, and is to be told when to come back
        elif reason is not None:
            connection.cancel(reason)
        self._hub.detach(inbox)
        return connection

    @property
    def last_event_id(self) -> str:
        """The id of the last event that was given out, or where it begins; ``""`` if that is not known yet."""
        return f"{self.inbox.epoch}-{self.inbox.cursor}" if self.inbox.epoch else ""

    @property
    def reason(self) -> CloseReason | None:
        """Why the subscription ended, ``None`` while it has not."""
        return self.inbox.reason if self._detached is None else self._detached.reason

    @property
    def closed(self) -> bool:
        """Whether the subscription has ended."""
        return self.reason is not None

    @property
    def events(self) -> int:
        """How many events were given out so far."""
        return self.inbox.events if self._detached is None else self._detached.stats.events

    @property
    def pending(self) -> tuple[int, int]:
        """How many events and bytes wait to be taken. Those that are in the log alone don't count."""
        return self.inbox.pending

    def take(self, timeout: float | None = None) -> list[bytes] | None:
        """Wait up to ``timeout`` seconds for events, as bytes of an event stream: all there are, or a page of the log.

        An empty list says that the time is over; ``None`` that the subscription has ended, see ``reason``.
        """
        if self._first and not self.closed:
            first, self._first = self._first, []
            return first
        deadline = None if timeout is None else time.monotonic() + timeout
        pause = _TRY_AGAIN[0]
        while True:
            remaining = None if deadline is None else max(0.0, deadline - time.monotonic())
            if self._hub is not self._broker.dispatcher:
                self.inbox.abandon()  # the parent's, in a forked child: nobody feeds it
                return None
            place = self.inbox.look()
            if place is None:
                items = self.inbox.take(remaining)
                if items is None:
                    self._hub.detach(self.inbox)
                    return None
                if items or not self.inbox.behind:
                    return list(items)
                continue
            try:
                if messages := self._read_log(*place):
                    return list(messages)
                self._failing = False
            except BrokerClosed:
                self.cancel(CloseReason.SHUTDOWN)
            except BrokerError as error:
                if not self._failing:
                    logger.warning("a subscriber can't read the log, and goes on trying: %s", escape(error))
                self._failing = True
                if isinstance(error, BrokerDamaged):
                    self.cancel(CloseReason.ERROR)
                self.inbox.pause(pause if remaining is None else min(pause, remaining))
                pause = min(2 * pause, _TRY_AGAIN[1])
                if remaining == 0:
                    return []

    def get(self, timeout: float | None = None) -> Event | None:
        """Wait up to ``timeout`` seconds for an event; ``None`` if none came.

        :raises StreamClosed: the subscription has ended.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        while not self._events:
            items = self.take(None if deadline is None else max(0.0, deadline - time.monotonic()))
            if items is None:
                raise StreamClosed(self.inbox.reason or CloseReason.CANCELLED)
            self._events = [item.event for item in reversed(items) if isinstance(item, Message)]
            if not self._events and deadline is not None and time.monotonic() >= deadline:
                return None
        return self._events.pop()

    def __iter__(self) -> Iterator[Event]:
        """The events, until the subscription is closed.

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
        """End at once: nothing that waits is given out. From any thread, any number of times."""
        if self._detached is not None:
            self._detached.cancel(reason)
        self.inbox.close(CloseReason(reason), discard=True)
        self._hub.detach(self.inbox)

    def stop(self, reason: CloseReason | str, last: bytes = b"") -> None:
        """End after what waits, then ``last``. From any thread."""
        if self._detached is not None:
            self._detached.stop(reason, last)
            return  # the inbox would have it cut off
        self.inbox.close(CloseReason(reason), last=last)
        self._hub.detach(self.inbox)

    def close(self) -> None:
        """End. Does nothing if it has ended."""
        self.cancel()

    def __enter__(self) -> Subscription:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def __del__(self) -> None:
        # Of a view that failed after it had subscribed, say. This may run anywhere, so it takes no lock.
        inbox = getattr(self, "inbox", None)
        if inbox is not None:
            inbox.abandon()
            self._hub.detach(inbox)

    def _read_log(self, generation: int, epoch: str, cursor: int) -> list[Message]:
        page = self._broker.read(epoch, cursor, self.channels, self.patterns, self.page)
        inbox = self.inbox
        if not page.lost:
            end = page.messages[-1].seq if page.messages else cursor
            return inbox.found(
                page.messages, complete=page.complete, generation=generation, end=end, epoch=page.epoch
            )  # fmt: skip
        blameless = inbox.blameless
        if generation != inbox.generation:
            return []  # the listener has found out meanwhile that the log was begun anew, and has told it so
        if not blameless:
            # It was live, and is too slow for what the log keeps.
            self._broker.count("disconnected", 1)
            self.cancel(CloseReason.OVERFLOW)
            return []
        reset = inbox.reset(page.lost, page.epoch, page.head)
        return inbox.found([reset], complete=True, generation=generation, end=page.head, epoch=page.epoch)
