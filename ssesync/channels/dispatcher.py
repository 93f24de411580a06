"""The dispatcher: the subscriptions of this process to channels. It offers them each message that the broker delivers.

It holds *sinks*, and never waits for one. Any thread adds and removes sinks; one thread at a time delivers messages. A
sink is offered every message that is delivered after it was added: those after ``position``. The log has all earlier
ones.
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, cast

from ..errors import CloseReason
from ..locks import make_lock
from .index import Index, drop, having, matches, put
from .message import CONTROL, Message
from .reentry import carry_out, entered

__all__ = ["Closable", "Dispatcher", "Registration", "SharedSink", "Sink"]

# Messages that are offered to a sink at a time. So a waiting thread is woken once for all of them, not for each: with a
# thousand threads that made bursts twenty times as fast. A quarter of a sink's queue by default.
_RUN = 64
# A channel's sinks are cached if it has more members than this. With fewer, for example of a user's own channel, they
# are found as fast, and the cache would take memory for each user.
_UNCACHED_MEMBERS = 8
# Channels whose sinks are cached.
_MAX_CACHED = 10_000


class Closable(Protocol):
    """A member: an object that is subscribed to channels. Nothing here may wait; called on any thread."""

    def close(self, reason: CloseReason) -> object:
        """End it: the broker closes, or a right was revoked.

        :param reason: which of the two.
        """


class Sink(Protocol):
    """A receiver of messages. Nothing here may wait; called on the thread that publishes or listens."""

    def offer(self, messages: Sequence[Message]) -> CloseReason | None:
        """Give messages to the sink.

        :param messages: in order. A message may be offered twice, or be older than the sink: compare ``seq``.
        :return: why the sink has ended and must be removed; ``None`` while it has not.
        """

    def restarted(self, epoch: str, position: int) -> object:
        """Report that the log was begun anew.

        :param epoch: of the new log.
        :param position: the number of the event after which messages are offered from now on.
        """

    def missed(self, channels: Collection[str] | None) -> object:
        """Report that messages were not offered, which are in the log. Later ones may be offered.

        :param channels: the channels of these messages; ``None``: any.
        """


class SharedSink(Sink, Protocol):
    """A sink that several members share."""

    def revoked(self, member: Closable) -> object:
        """Report that a member must not get the messages that are offered from now on.

        :param member: the member.
        """


@dataclass(eq=False, slots=True)
class Registration:
    """A member's channels, key and sink."""

    channels: tuple[str, ...]
    patterns: tuple[str, ...]
    key: str | None
    sink: Sink
    """The receiver of the member's messages: the member itself, or a sink that it shares with others."""
    until: tuple[str, ...] = ()
    """The types of events after which its stream ends. Only for a client that shares its sink."""
    envelope: Any = None
    """The client's envelope, if it has one."""
    is_held: bool = False
    """Whether the application may refer to the subscription, and end it: then its client stays in this process."""

    def covers(self, channel: str) -> bool:
        """Whether a channel is among those of the member.

        :param channel: the channel's name.
        :return: whether it is.
        """
        return channel in self.channels or any(matches(each, channel) for each in self.patterns)


class Dispatcher:
    """See the module. Any thread may call its methods; :meth:`advance` and :meth:`deliver` only one thread at a
    time."""

    def __init__(self) -> None:
        self._lock = make_lock("channels.dispatcher")
        self._members: dict[Closable, Registration] = {}
        self._index: Index[Closable] = Index()
        self._keys: dict[str, Closable | dict[Closable, None]] = {}
        self._replaced: dict[Closable, Closable] = {}  # a member that is about to be removed, by its successor
        self._cached: dict[str, tuple[Sink, ...]] = {}  # the sinks of a channel
        self._removed: deque[Any] = deque()  # members to be removed
        #: The log's epoch.
        self.epoch = ""
        #: The number of a message: a sink that is added now is offered all later ones.
        self.position = 0
        #: Up to here, all messages were offered, and the requests of the brokers' own channel carried out.
        self.handled = -1
        self._changed: set[str] | None = None  # noted from the first take_changed() on: memory:// never calls it
        #: Called with each message of the brokers' own channel.
        self.on_control: Callable[[Message], object] = lambda message: None
        #: Called with the position at which the broker begins to listen, and where a new log begins.
        self.on_begin: Callable[[str, int], object] = lambda epoch, position: None

    def begin(self, epoch: str, position: int) -> None:
        """Set the position at which the broker begins to listen.

        :param epoch: of the log.
        :param position: the number of the log's last message.
        """
        self.on_begin(epoch, position)
        self.epoch, self.position = epoch, position
        self.handled = position

    def register(
        self, member: Closable, registration: Registration, replaces: Closable | None = None
    ) -> tuple[str, int]:
        """Add a member. Each member is counted and closed individually. Several may share a sink: it is offered each
        message once, however many members have the channel.

        :param member: the member.
        :param registration: its channels and its sink.
        :param replaces: a member that is about to be removed, and is no longer counted.
        :return: the log's epoch and the number after which the sink is offered all messages of these channels. A shared
            sink may not have been offered earlier ones.
        """
        try:
            with entered(), self._lock:  # as _held(), without its cost for each new client
                self._members[member] = registration
                if replaces is not None:
                    self._replaced[member] = replaces
                self._index.add(member, registration.channels, registration.patterns)
                if registration.key is not None:
                    put(self._keys, registration.key, member)
                self._note_change(registration, member)
                return self.epoch, self.position
        finally:
            self._purge()

    def remove(self, member: Closable) -> None:
        """Remove a member. Any number of times, and also from a destructor, which may run anywhere.

        :param member: the member.
        """
        self._removed.append(member)
        self._purge()

    def __len__(self) -> int:
        return len(self._members)

    def count(self, channel: str) -> int:
        """Count the members that have a channel, by its name or by a pattern.

        :param channel: the channel's name.
        :return: how many there are.
        """
        with self._held():
            return self._count(self._index.having(channel))

    def channel_count(self) -> int:
        """Count the channels that members have by their names.

        :return: how many there are.
        """
        return len(self._index.names)

    def take_changed(self, *, every: bool = False) -> dict[str, int]:
        """Take the channels whose number of members has changed since the last call.

        :param every: all channels, changed or not.
        :return: the number of members by channel.
        """
        with self._held():
            changed, self._changed = self._changed, set()
            if every or changed is None:
                changed = {*(changed or ()), *self._index.names}
            return {channel: self._count(having(self._index.names, channel)) for channel in changed}

    def _count(self, found: Collection[Closable]) -> int:
        return len(found) - sum(new in found and old in found for new, old in self._replaced.items())

    def advance(self, channels: Iterable[str], position: int) -> list[str]:
        """Set the position, and promise to deliver the messages up to it. A member that is added from now on is offered
        only later ones.

        :param channels: the channels of these messages.
        :param position: the number of the last of them.
        :return: those of the channels that members have, or that the brokers use.
        """
        with self._held():
            self.position = position
            wanted = [channel for channel in channels if channel == CONTROL or self._sinks_of(channel)]
            if not wanted:
                self.handled = position
            return wanted

    def deliver(self, messages: Iterable[Message], position: int | None = None, *, handled: int | None = None) -> None:
        """Offer messages to all members that have their channels.

        :param messages: in order.
        :param position: the number of the last of them, where :meth:`advance` was not called for it.
        :param handled: the number of the last of them, if more messages up to the position are to be delivered.
        """
        with self._held():
            if position is not None:
                # Before the messages are offered: a sink that is added from now on reads them from the log.
                self.position = position
            reached = self.position
            runs: list[tuple[list[Message], tuple[Sink, ...]]] = []
            for message in messages:
                sinks = self._sinks_of(message.channel)
                last = runs[-1][1] if runs else None
                if (sinks is not last and sinks != last) or len(runs[-1][0]) == _RUN:
                    runs.append(([], sinks))
                runs[-1][0].append(message)
        for run, sinks in runs:
            for message in run:
                if message.channel == CONTROL:
                    self.on_control(message)
            # Sink by sink: the reader of a sink is woken once, and finds all of them.
            for sink in sinks:
                if sink.offer(run) is not None:
                    self._removed.append(sink)
        self.handled = reached if handled is None else handled
        self._purge()

    def restarted(self, epoch: str, position: int) -> None:
        """Report to all sinks that the log was begun anew.

        :param epoch: of the new log.
        :param position: the number of the event after which messages are delivered from now on.
        """
        self.on_begin(epoch, position)
        with self._held():
            self.epoch, self.position = epoch, position
            sinks = self._all_sinks()
        for sink in sinks:
            sink.restarted(epoch, position)
        self.handled = position

    def missed(self, channels: Iterable[str] | None) -> None:
        """Report to sinks that messages could not be delivered, which are in the log.

        :param channels: the channels of these messages; ``None``: any.
        """
        with self._held():
            found: dict[Sink, list[str] | None] = {}
            if channels is None:
                found.update(dict.fromkeys(self._all_sinks()))
            for name in channels or ():
                for sink in self._sinks_of(name):
                    found[sink] = [*(found.get(sink) or ()), name]
        for sink, names in found.items():
            sink.missed(names)

    def revoke(self, key: str | None, channel: str | None) -> int:
        """Close and remove the members that have a key.

        :param key: the key; ``None``: any.
        :param channel: only those that have this channel too; ``None``: all.
        :return: how many there were.
        """
        with self._held():
            keys = self._keys if key is None else (key,)
            found: list[tuple[Any, Registration]] = [
                (member, self._members[member]) for each in keys for member in having(self._keys, each)
            ]
        if channel is not None:
            found = [(member, registration) for member, registration in found if registration.covers(channel)]
        for member, registration in found:
            if registration.sink is not member:
                cast(SharedSink, registration.sink).revoked(member)
            member.close(CloseReason.REVOKED)
            self.remove(member)
        return len(found)

    def close(self, reason: CloseReason) -> None:
        """Close and remove all members. Any thread, any signal handler: it waits for no lock.

        :param reason: why.
        """
        for member in list(self._members):  # one step of the interpreter
            member.close(reason)
            self.remove(member)

    def _all_sinks(self) -> list[Sink]:
        return list(dict.fromkeys(registration.sink for registration in self._members.values()))

    def _sinks_of(self, channel: str) -> tuple[Sink, ...]:
        sinks = self._cached.get(channel)
        if sinks is None:
            found = self._index.having(channel)
            sinks = tuple(dict.fromkeys([self._members[member].sink for member in found]))
            if len(found) > _UNCACHED_MEMBERS:
                if len(self._cached) > _MAX_CACHED:
                    self._cached.clear()
                self._cached[channel] = sinks
        return sinks

    @contextlib.contextmanager
    def _held(self) -> Iterator[None]:
        try:
            with entered(), self._lock:
                yield
        finally:
            self._purge()

    def _purge(self) -> None:
        # A destructor may remove a member on a thread that holds the lock: then the member stays in the queue until the
        # lock is free. The holder of the lock calls this after it has released the lock, so no member is left.
        if not self._removed:
            return
        carry_out(self._lock, lambda: self._removed, self._remove_queued)

    def _remove_queued(self) -> None:
        while self._removed:
            self._remove(self._removed.popleft())

    def _remove(self, member: Closable) -> None:
        registration = self._members.pop(member, None)
        if registration is None:
            return
        if self._replaced:
            self._replaced = {new: old for new, old in self._replaced.items() if member not in (new, old)}
        self._index.remove(member, registration.channels, registration.patterns)
        if registration.key is not None:
            drop(self._keys, registration.key, member)
        self._note_change(registration)

    def _note_change(self, registration: Registration, added: object = None) -> None:
        joins_shared_sink = added is not None and registration.sink is not added
        if self._changed is not None:
            self._changed.update(registration.channels)
        if registration.patterns:
            self._cached.clear()
        for channel in registration.channels:
            # A further member of a shared sink that has the channel changes nothing.
            if not (joins_shared_sink and registration.sink in self._cached.get(channel, ())):
                self._cached.pop(channel, None)
