"""Publishing: the methods of a broker that append events to its log, and that find one by its id."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from ..errors import BrokerClosed, excerpt
from .backend import Backend
from .brokers.acceptance import refusal
from .counters import Counters
from .entry import CLOSED, Entry
from .group_commit import GroupCommit
from .message import CONTROL, body_of, check_channel, parse_id
from .reentry import entered

__all__ = ["Publisher"]


class Publisher(Backend):
    """The part of a broker that publishes. See :class:`ssesync.Broker`."""

    #: Seconds within which what threads of this process publish goes into the log in one step; ``None``: each event by
    #: itself.
    linger: float | None = None
    _closed = False
    _counters: Counters
    _group_commit: GroupCommit | None = None

    def publish(
        self,
        channel: str,
        event: Any,
        *,
        type: str | None = None,
        final: bool = False,
        dumps: Callable[[Any], str | bytes] | None = None,
    ) -> str:
        """Publish an event to a channel.

        :param channel: the channel's name.
        :param event: an :class:`Event` without an id, text, or anything that JSON can hold.
        :param type: the event's type, where ``event`` is no :class:`Event`.
        :param final: close the channel with this event: nothing more can be published to it. Subscriptions by its name
            end after the event; a client that comes back after that gets what it has not had, and the end.
        :param dumps: the JSON encoder.
        :return: the event's id.
        :raises ChannelClosed: the channel was closed before.
        :raises BrokerError: it is not in the log; see :class:`BrokerUnavailable` for the one exception.
        :raises ChannelError: no channel can have this name.
        :raises EventError: the event has an id, or no data, or can't be written.
        :raises TypeError: the event is nothing that can be sent.
        """
        return self.prepare(channel, event, type=type, final=final, dumps=dumps)()

    def prepare(
        self,
        channel: str,
        event: Any,
        *,
        type: str | None = None,
        final: bool = False,
        dumps: Callable[[Any], str | bytes] | None = None,
    ) -> Callable[[], str]:
        """As :meth:`publish`, in two steps: the event is checked and encoded now, and published when the result is
        called, for example after a transaction's commit.

        :param channel: the channel's name.
        :param event: see :meth:`publish`.
        :param type: see :meth:`publish`.
        :param final: see :meth:`publish`.
        :param dumps: the JSON encoder.
        :return: a function that publishes the event and returns its id.
        :raises ChannelError: no channel can have this name.
        :raises EventError: the event has an id, or no data, or can't be written.
        :raises TypeError: the event is nothing that can be sent.
        """
        body = body_of(event, type, dumps)
        if final:
            return functools.partial(self._publish_final, check_channel(channel), body)
        return functools.partial(self._publish, check_channel(channel), body)

    def publish_many(
        self,
        events: Iterable[tuple[str, Any] | tuple[str, Any, str | None]],
        *,
        dumps: Callable[[Any], str | bytes] | None = None,
    ) -> list[str]:
        """Publish events to any channels in one step: all of them or, where this raises, none. Listeners are woken
        once.

        :param events: ``(channel, event)`` or ``(channel, event, type)`` for each, see :meth:`publish`.
        :param dumps: the JSON encoder.
        :return: the ids, in the order of the events. They may not be consecutive.
        :raises ChannelClosed: one of the channels is closed.
        :raises BrokerError: they are not in the log; see :class:`BrokerUnavailable` for the one exception.
        :raises ChannelError: no channel can have one of the names.
        :raises EventError: an event has an id, or no data, or can't be written.
        :raises TypeError: an event is nothing that can be sent.
        """
        entries = [
            Entry(check_channel(channel), body_of(event, type[0] if type else None, dumps))
            for channel, event, *type in events
        ]
        return self._publish_entries(entries) if entries else []

    def position(self) -> str:
        """The id of the last published event, of any channel.

        A subscription that is made later with this id as ``last_event_id`` gets all events that are published in
        between: ask for the id first, then read the state for the page, and subscribe when the page is loaded.

        :return: the id.
        :raises BrokerError: the log can't be reached or used.
        """
        self._check_open()
        epoch, head = self._head()
        return f"{epoch}-{head}"

    def channel_of(self, event_id: str) -> str | None:
        """Find the channel of an event.

        The id is a position in all channels. So a client may send the id of an event whose channel it must not read:
        check the right to the channel that is found, if the answer depends on it.

        :param event_id: the event's id.
        :return: the channel's name; ``None`` if the log does not have the event, or has dropped it.
        :raises BrokerError: the log can't be reached or used.
        """
        if not isinstance(event_id, str):
            raise TypeError(f"an event's id is text, got {excerpt(event_id)}")
        self._check_open()
        position = parse_id(event_id)
        message = self.find(*position) if position is not None else None
        return None if message is None or message.channel == CONTROL else message.channel

    def has_channel(self, name: str) -> bool:
        """Whether the log has a channel: an event was published to it, and the limits have not dropped it since.

        :param name: the channel's name.
        :return: whether it has.
        :raises BrokerError: the log can't be reached or used.
        :raises ChannelError: no channel can have this name.
        """
        check_channel(name)
        self._check_open()
        return self._has_channel(name)

    def count(self, name: str, by: int) -> None:
        """Count for :meth:`snapshot`. It waits for no lock.

        :param name: the counter.
        :param by: how much to add.
        """
        self._counters.add(name, by)

    @property
    def closed(self) -> bool:
        """Whether it was closed."""
        return self._closed

    def _publish(self, channel: str, body: bytes) -> str:
        self._check_open()
        if self.linger is not None and channel != CONTROL:
            event_id = self._publish_in_group(channel, body, self.linger)
        else:
            event_id = self._append(channel, body)
        if channel != CONTROL:
            self.count("published", 1)
        if self._closed:
            self._release()  # it was closed after the check above, for example by a signal handler
        return event_id

    def _publish_in_group(self, channel: str, body: bytes, linger: float) -> str:
        group = self._group_commit
        if group is None:
            with entered(), self._lock:
                append = functools.partial(self._append_many, whole=False)
                group = self._group_commit = self._group_commit or GroupCommit(append, linger, self._lock)
        if group.is_used_here():
            return self._append(channel, body)
        event_id, number = group.publish(Entry(channel, body))
        if number == CLOSED:
            raise refusal(channel)
        return event_id

    def _publish_final(self, channel: str, body: bytes) -> str:
        return self._publish_entries([Entry(channel, body, final=True)])[0]

    def _publish_entries(self, entries: Sequence[Entry]) -> list[str]:
        self._check_open()
        epoch, numbers = self._append_many(entries, whole=True)
        self.count("published", len(numbers))
        if self._closed:
            self._release()  # as above
        return [f"{epoch}-{number}" for number in numbers]

    def _check_open(self) -> None:
        if self._closed:
            raise BrokerClosed("the broker is closed")
