"""Subscription: the public object that :meth:`Broker.subscribe` returns."""

from __future__ import annotations

import inspect
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator
from typing import Any

from ..errors import CloseReason, StreamClosed
from ..event import ReceivedEvent
from ..server.source import Source, Streamable
from ..text import shown
from .envelope import Envelope
from .index import matches
from .message import Message, body_of
from .policy import Policy
from .source import SubscriptionBroker, SubscriptionSource
from .subscriber import Subscriber

__all__ = ["Subscription"]

# Reasons that end an iteration without an error.
_QUIET = (CloseReason.DONE, CloseReason.CANCELLED, CloseReason.SHUTDOWN)


class Subscription(Streamable):
    """The result of :meth:`Broker.subscribe`: the source of a stream, or events to iterate over.

    ::

        return EventStreamResponse(broker.subscribe("room:1", last_event_id=get_last_event_id(request)))

        with broker.subscribe("orders") as subscription:
            for event in subscription: ...

    As the source of a stream it needs no thread of its own: the server's thread takes the messages from its queue. One
    thread at a time may read it, any thread may end it. A subscription without references ends by itself.
    """

    def __init__(
        self,
        broker: SubscriptionBroker,
        channels: tuple[str, ...],
        patterns: tuple[str, ...],
        policy: Policy,
        key: str | None = None,
        until: tuple[str, ...] = (),
        envelope: Envelope | None = None,
    ) -> None:
        #: Its channels, and its patterns of channels.
        self.channels, self.patterns = channels, patterns
        self._source = SubscriptionSource(broker, channels, patterns, policy, key, until, envelope)
        self._unread: list[ReceivedEvent] = []  # events that were taken and not returned yet, the last one first

    def as_source(self) -> Source:
        """The source of a stream. For ``EventStream``.

        :return: always the same one.
        """
        return self._source

    @property
    def _subscriber(self) -> Subscriber:
        return self._source.subscriber

    def covers(self, channel: str) -> bool:
        """Whether it gets the events of a channel.

        :param channel: the channel's name.
        :return: whether it does.
        """
        return channel in self.channels or any(matches(each, channel) for each in self.patterns)

    def allowed_by(self, authorize: Callable[[str], object]) -> bool:
        """Call a check for each channel and each pattern.

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
        """Begin the stream with these events, before the replayed and the live ones: for example with the state that
        the later events change. They are made after subscribing, so no event is missed in between. A program that reads
        the events itself does not get them.

        :param items: the events, as for :meth:`Broker.publish`.
        :param dumps: the JSON encoder.
        :raises EventError: one has an id, or no data, or can't be written.
        :raises TypeError: one is nothing that can be sent.
        """
        self._source.first += [Message.first(body_of(item, None, dumps)) for item in items]

    @property
    def last_event_id(self) -> str:
        """The id of the last event that was returned, or at first of the event before it; ``""`` if not known yet."""
        epoch, seq = self._source.position
        return f"{epoch}-{seq}" if epoch else ""

    @property
    def reason(self) -> CloseReason | None:
        """Why the subscription ended, ``None`` while it has not."""
        return self._source.reason

    @property
    def closed(self) -> bool:
        """Whether the subscription has ended."""
        return self.reason is not None

    @property
    def events(self) -> int:
        """How many events were returned or sent so far."""
        return self._source.events

    @property
    def pending(self) -> tuple[int, int]:
        """How many events and bytes are queued. Events that are in the log alone don't count."""
        return self._source.pending

    def take(self, timeout: float | None = None) -> list[bytes] | None:
        """Wait for events, as bytes of an event stream.

        :param timeout: seconds; ``None``: without end.
        :return: all queued events, or a page of the log; an empty list after the timeout; ``None`` if the subscription
            has ended, see ``reason``.
        """
        return self._source.take(timeout)

    def get(self, timeout: float | None = None) -> ReceivedEvent | None:
        """Wait for an event.

        :param timeout: seconds; ``None``: without end.
        :return: the event; ``None`` after the timeout.
        :raises StreamClosed: the subscription has ended.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        while not self._unread:
            items = self.take(None if deadline is None else max(0.0, deadline - time.monotonic()))
            if items is None:
                raise StreamClosed(self.reason or CloseReason.CANCELLED)
            self._unread = [item.event for item in reversed(items) if isinstance(item, Message) and item.seq >= 0]
            if not self._unread and deadline is not None and time.monotonic() >= deadline:
                return None
        return self._unread.pop()

    def __iter__(self) -> Iterator[ReceivedEvent]:
        """The events, until the subscription is closed.

        :return: an iterator over them.
        :raises StreamClosed: it ended for another reason: it was too slow, or a right was revoked.
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
        """End at once: queued events are dropped. From any thread, any number of times.

        :param reason: why.
        """
        self._source.cancel(reason)

    def stop(self, reason: CloseReason | str, last: bytes = b"") -> None:
        """End after the queued events. From any thread.

        :param reason: why.
        :param last: bytes to be sent after the queued events.
        """
        self._source.stop(reason, last)

    def close(self) -> None:
        """End. Does nothing if it has ended."""
        self.cancel()

    def __repr__(self) -> str:
        state = "open" if self.reason is None else f"closed ({self.reason.value})"
        return shown(self, *self.channels, *self.patterns, state=state)

    def __enter__(self) -> Subscription:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()
