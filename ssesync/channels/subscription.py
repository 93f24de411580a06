"""Subscription: the public object that :meth:`Broker.subscribe` returns."""

from __future__ import annotations

import inspect
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator
from typing import Any

from ..errors import CloseReason, StreamClosed
from ..event import Event
from ..server.source import Source, Streamable
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

    As the source of a stream it needs no thread of its own: messages are put where the server's thread takes them. It
    may be read by one thread at a time, and ended from any. One that is not referred to any more ends by itself.
    """

    def __init__(
        self,
        broker: SubscriptionBroker,
        channels: tuple[str, ...],
        patterns: tuple[str, ...],
        policy: Policy,
        key: str | None = None,
    ) -> None:
        #: The channels, and patterns of channels, that it gets.
        self.channels, self.patterns = channels, patterns
        self._source = SubscriptionSource(broker, channels, patterns, policy, key)
        self._unread: list[Event] = []  # of what was taken, the last first

    def as_source(self) -> Source:
        """The source of a stream. For ``EventStream``.

        :return: always the same one.
        """
        return self._source

    @property
    def _subscriber(self) -> Subscriber:
        return self._source.subscriber

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
        """Have a stream begin with these events, before the replayed and the live ones: for example with the state that
        those change. They are made after subscribing, so no event is missed in between. They are not for a program
        that reads the events itself.

        :param items: the events, as for :meth:`Broker.publish`.
        :param dumps: the JSON encoder.
        :raises EventError: one has an id, or no data, or can't be written.
        :raises TypeError: one is nothing that can be sent.
        """
        self._source.first += [body_of(item, None, dumps) for item in items]

    @property
    def last_event_id(self) -> str:
        """The id of the last event that was given out, or where it begins; ``""`` if that is not known yet."""
        epoch, seq = self._subscriber.position
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
        """How many events were given out so far."""
        return self._source.events

    @property
    def pending(self) -> tuple[int, int]:
        """How many events and bytes wait to be taken. Those that are in the log alone don't count."""
        return self._source.pending

    def take(self, timeout: float | None = None) -> list[bytes] | None:
        """Wait for events, as bytes of an event stream.

        :param timeout: seconds; ``None``: without end.
        :return: all events that there are, or a page of the log; an empty list if the time is over; ``None`` if the
            subscription has ended, see ``reason``.
        """
        return self._source.take(timeout)

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
                raise StreamClosed(self.reason or CloseReason.CANCELLED)
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
        self._source.cancel(reason)

    def stop(self, reason: CloseReason | str, last: bytes = b"") -> None:
        """End after what waits. From any thread.

        :param reason: why.
        :param last: bytes to be given after what waits.
        """
        self._source.stop(reason, last)

    def close(self) -> None:
        """End. Does nothing if it has ended."""
        self.cancel()

    def __enter__(self) -> Subscription:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()
